//! Word expansion, .dockerignore and template variables.

use minke_common_dockerfile::expand::{heredoc, word, words};
use minke_common_dockerfile::ignore::Ignore;
use minke_common_dockerfile::project::{Target, candidates, is_template};

fn lookup(name: &str) -> Option<String> {
    match name {
        "A" => Some("one".into()),
        "EMPTY" => Some(String::new()),
        "SP" => Some("x  y".into()),
        "FILE" => Some("dir/name.tar.gz".into()),
        _ => None,
    }
}

#[test]
fn words_expand_as_in_docker() {
    for (text, expected) in [
        ("$A", "one"),
        ("${A}s", "ones"),
        ("$Ax", ""),
        ("'$A'", "$A"),
        ("\"$A '\"", "one '"),
        ("\\$A", "$A"),
        ("\"\\$A\\\"\\n\"", "$A\"\\n"),
        ("a\\ b", "a b"),
        ("${U:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${A:+y}", "y"),
        ("${EMPTY:+y}", ""),
        ("${EMPTY+y}", "y"),
        ("${U:-${A}-${U:-z}}", "one-z"),
        ("${U:-\"a }\"}", "a }"),
        ("${FILE#*/}", "name.tar.gz"),
        ("${FILE%.*}", "dir/name.tar"),
        ("${FILE%%.*}", "dir/name"),
        ("${FILE##*.}", "gz"),
        ("${FILE/name/x}", "dir/x.tar.gz"),
        ("${FILE//r/R}", "diR/name.taR.gz"),
        ("$", "$"),
        ("a$", "a$"),
        ("$SP", "x  y"),
        ("ü$A", "üone"),
        ("$Aü", ""),
        ("$ü.", "."),
        ("${A}ü", "oneü"),
    ] {
        assert_eq!(word(text, '\\', &lookup).unwrap(), expected, "{text}");
    }
}

#[test]
fn values_split_only_where_words_are_asked_for() {
    assert_eq!(words("$SP \"$SP\" ''", '\\', &lookup).unwrap(), ["x", "y", "x  y", ""]);
    assert_eq!(words("80 ${U}", '\\', &lookup).unwrap(), ["80"]);
}

#[test]
fn heredoc_bodies_keep_their_quotes() {
    assert_eq!(heredoc("\"$A\" '$A' \\$A\n", '\\', &lookup).unwrap(), "\"one\" 'one' $A\n");
}

#[test]
fn expansion_errors_say_what_is_wrong() {
    for (text, says) in [
        ("'a", "single quote"),
        ("\"a", "double quote"),
        ("${A", "expected `}`"),
        ("${A:-x", "expected `}`"),
        ("${A@Q}", "not a way to expand"),
        ("${1x}", "not a variable name"),
        ("${U:?must be given}", "U: must be given"),
    ] {
        let message = word(text, '\\', &lookup).unwrap_err().to_string();
        assert!(message.contains(says), "{text}: {message}");
    }
    let deep = "${U:-".repeat(64) + &"}".repeat(64);
    assert!(word(&deep, '\\', &lookup).unwrap_err().to_string().contains("limit"));
    let big = |_: &str| Some("x".repeat(200_000));
    assert!(word("$A$A", '\\', &big).unwrap_err().to_string().contains("limit"));
}

#[test]
fn the_last_pattern_that_matches_decides() {
    let ignore = Ignore::parse(
        "# comment\nnode_modules\n*.log\n!keep.log\ntarget/**\n!target/release/app\n**/*.tmp\n/abs\ndocs/*.md\n!docs/README.md\n[Tt]est?\n",
    )
    .unwrap();
    for (path, excluded) in [
        ("node_modules", true),
        ("node_modules/a/b.js", true),
        ("sub/node_modules/x", false),
        ("a.log", true),
        ("sub/a.log", false),
        ("keep.log", false),
        ("target/debug/app", true),
        ("target/release/app", false),
        ("target", false),
        ("x.tmp", true),
        ("a/b/x.tmp", true),
        ("abs/x", true),
        ("docs/a.md", true),
        ("docs/README.md", false),
        ("docs/sub/a.md", false),
        ("test1", true),
        ("Test2/x", true),
        ("test", false),
    ] {
        assert_eq!(ignore.excludes(path), excluded, "{path}");
    }
    assert!(!ignore.prunes("node_modules"));
    assert!(Ignore::parse("a").unwrap().prunes("a"));
}

#[test]
fn everything_out_and_some_back() {
    let ignore = Ignore::parse("**\n!src\n!Cargo.*\nsrc/secret\n").unwrap();
    assert!(ignore.excludes("README.md") && ignore.excludes("a/b"));
    assert!(!ignore.excludes("src/main.rs") && !ignore.excludes("Cargo.toml"));
    assert!(ignore.excludes("src/secret/key"));
}

#[test]
fn ignore_errors_name_the_line() {
    let message = Ignore::parse("a\n[b").unwrap_err().to_string();
    assert!(message.contains("line 2") && message.contains("never closed"), "{message}");
    let many = "a\n".repeat(1025);
    assert!(Ignore::parse(&many).unwrap_err().to_string().contains("1024"));
}

#[test]
fn template_variables_in_both_spellings() {
    let target = Target {
        architecture: "aarch64".into(),
        device_type: "raspberrypi4-64".into(),
        ..Target::default()
    };
    let text = "FROM x/%%BALENA_MACHINE_NAME%%:%%RESIN_ARCH%%\nRUN date +%%s %%OTHER%% 100%%";
    assert_eq!(
        target.fill(text).unwrap(),
        "FROM x/raspberrypi4-64:aarch64\nRUN date +%%s %%OTHER%% 100%%"
    );
    let error = target.fill("FROM a\n  %%BALENA_ACH%%").unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
    assert!(error.to_string().contains("BALENA_ARCH"));
}

#[test]
fn the_most_specific_dockerfile_wins() {
    assert_eq!(
        candidates("raspberrypi4-64", "aarch64"),
        ["Dockerfile.raspberrypi4-64", "Dockerfile.aarch64", "Dockerfile.template", "Dockerfile"]
    );
    assert!(is_template("sub/Dockerfile.template") && !is_template("Dockerfile"));
}
