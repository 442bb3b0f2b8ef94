//! Laws that hold for every text.

use minke_common_dockerfile::{Dockerfile, expand, ignore::Ignore, parse, project::Target};
use proptest::prelude::*;

/// A tree without places and warnings: what printing keeps.
fn bare(file: &Dockerfile) -> String {
    let mut file = file.clone();
    file.warnings.clear();
    for stage in &mut file.stages {
        stage.span = Default::default();
        for node in &mut stage.nodes {
            node.span = Default::default();
            node.text.clear();
        }
    }
    format!("{file:#?}")
}

fn fragment() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "CMD",
        "ENTRYPOINT",
        "EXPOSE",
        "USER",
        "VOLUME",
        "WORKDIR",
        "SHELL",
        "HEALTHCHECK",
        "ONBUILD",
        "STOPSIGNAL",
        "MAINTAINER",
        "NONE",
        "AS",
        "--from=b",
        "--chown='a b'",
        "--",
        "--mount=type=cache,target=/x",
        "--link",
        "a",
        "b=c",
        "k=\"v w\"",
        "k='it'",
        "$A",
        "${A:-b}",
        "\\",
        "\"",
        "'",
        "`",
        "<<EOF",
        "<<-'E'",
        "EOF",
        "E",
        "[\"a\", \"b\"]",
        "[]",
        "[",
        "#",
        "# escape=`",
        "\n",
        "\n",
        "\n",
        "\\\n",
        "\t",
        "--interval=3s",
        "scratch",
        "ü",
        "\u{85}",
        "\r",
    ])
    .prop_map(str::to_owned);
    prop::collection::vec((words, prop::sample::select(vec!["", " ", " "])), 0..40)
        .prop_map(|parts| parts.into_iter().map(|(w, s)| w + s).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn printing_reads_back_equal(text in fragment()) {
        for text in [text.clone(), format!("FROM a\n{text}")] {
            if let Ok(file) = parse(&text) {
                let printed = file.to_string();
                let again = parse(&printed)
                    .map_err(|e| TestCaseError::fail(format!("{e}\n{printed}")))?;
                prop_assert_eq!(bare(&file), bare(&again), "printed:\n{}", printed);
            }
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}", lines in prop::collection::vec("[ -~]{0,40}", 0..20)) {
        let lines = lines.join("\n");
        for text in [&text, &lines] {
            let _ = parse(text);
            let _ = parse(&format!("FROM a\n{text}"));
            let _ = expand::word(text, '\\', &|_| Some("v".into()));
            let _ = expand::words(text, '`', &|_| None);
            let _ = expand::heredoc(text, '\\', &|_| None);
            if let Ok(ignore) = Ignore::parse(text) {
                let _ = ignore.excludes("a/b/c");
            }
            let _ = Target::default().fill(text);
        }
    }

    #[test]
    fn errors_point_into_the_text(text in fragment()) {
        if let Err(error) = parse(&text) {
            let lines = text.split('\n').count();
            prop_assert!(error.line >= 1 && error.line <= lines, "{}", error);
            prop_assert!(error.column >= 1);
        }
    }

    #[test]
    fn quoted_words_come_out_as_they_are(value in "[ -&(-~]{0,30}") {
        let quoted = format!("'{value}'");
        prop_assert_eq!(expand::word(&quoted, '\\', &|_| None).unwrap(), value);
    }
}
