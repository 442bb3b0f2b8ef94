//! The Dockerfile corpus: every project of `tests/corpus` is built by both docker CLIs and looks as its
//! `expected.txt` says; Docker's own classic builder makes the same of those that it can build; and the
//! table in `docs/` names a project for every feature.
//!
//! `MINKE_BLESS=1` writes `expected.txt` and the table anew. `MINKE_CORPUS` chooses projects by a part of
//! their names; `MINKE_CORPUS=1` compares all with dockerd, not only the sample.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::soak::report;
use crate::support::{Dockerd, Outcome, Picture, Project, Served, Site, clis, docker28};
use crate::support::{image_archive, image_layer};

/// Features that the corpus must show, and what they are.
const FEATURES: &[(&str, &str)] = &[
    ("stages", "several stages"),
    ("parallel", "stages that do not need each other"),
    ("from-scratch", "`FROM scratch`"),
    ("from-platform", "`FROM --platform`"),
    ("platform-args", "`TARGETPLATFORM`, `BUILDPLATFORM` and their parts"),
    ("arg", "`ARG`"),
    ("arg-before-from", "`ARG` before `FROM`"),
    ("arg-in-from", "variables in `FROM`"),
    ("arg-global", "a global `ARG` taken into a stage"),
    ("arg-scope", "arguments end with their stage; variables hide them"),
    ("env", "`ENV` in both forms"),
    ("env-expansion", "`$A`, `${A:-x}`, `${A:+x}`, quotes and escapes"),
    ("run-shell", "`RUN` as a shell line"),
    ("run-exec", "`RUN` as a JSON array"),
    ("run-network-flag", "`RUN --network`"),
    ("heredoc-run", "`RUN <<EOF`"),
    ("heredoc-run-script", "`RUN <<EOF` with a `#!` line"),
    ("heredoc-run-input", "`RUN cat <<A && cat <<B`"),
    ("heredoc-copy", "`COPY <<EOF file`"),
    ("heredoc-copy-many", "`COPY <<A <<B directory/`"),
    ("heredoc-quoted", "`<<'EOF'`: nothing is expanded"),
    ("heredoc-tabs", "`<<-EOF`: leading tabs go"),
    ("heredoc-add", "`ADD <<EOF file`"),
    ("mount-cache", "`RUN --mount=type=cache`"),
    ("mount-cache-from", "a cache that begins with files of a stage"),
    ("mount-bind", "`RUN --mount=type=bind`"),
    ("mount-bind-from", "a bind of a stage's file"),
    ("mount-bind-rw", "a writable bind that leaves nothing"),
    ("mount-tmpfs", "`RUN --mount=type=tmpfs`"),
    ("mount-secret", "`RUN --mount=type=secret`"),
    ("mount-secret-env", "a secret as a variable"),
    ("copy-from-stage", "`COPY --from=stage`"),
    ("copy-from-index", "`COPY --from=0`"),
    ("copy-from-image", "`COPY --from=image`"),
    ("copy-chown", "`COPY --chown`, by name and number"),
    ("copy-chmod", "`COPY --chmod`, octal"),
    ("copy-chmod-symbolic", "`COPY --chmod=u=rwX,go=rX`"),
    ("copy-link", "`COPY --link`"),
    ("copy-parents", "`COPY --parents`, with `**`"),
    ("copy-parents-pivot", "`COPY --parents a/./b`"),
    ("copy-exclude", "`COPY --exclude`"),
    ("copy-wildcard", "patterns in `COPY`"),
    ("copy-json", "`COPY` as a JSON array"),
    ("copy-directory", "a directory's content"),
    ("copy-several", "several sources"),
    ("copy-rename", "a file under another name"),
    ("copy-symlink", "links in what is copied"),
    ("copy-through-link", "a link in the image on the way to the destination"),
    ("copy-mode", "modes are kept"),
    ("add-file", "`ADD` of a file"),
    ("add-archive", "`ADD` of archives"),
    ("add-unpack", "`ADD --unpack`"),
    ("add-chown", "`ADD --chown`"),
    ("add-chmod", "`ADD --chmod`"),
    ("add-url", "`ADD` of a URL"),
    ("add-checksum", "`ADD --checksum`"),
    ("add-git", "`ADD` of a git repository"),
    ("add-git-directory", "`ADD repository#tag:directory`"),
    ("add-git-keep", "`ADD --keep-git-dir`"),
    ("workdir", "`WORKDIR`, absolute and relative"),
    ("user", "`USER`"),
    ("expose", "`EXPOSE`, ranges and protocols"),
    ("volume", "`VOLUME` in both forms"),
    ("label", "`LABEL` in all forms"),
    ("stopsignal", "`STOPSIGNAL`"),
    ("healthcheck", "`HEALTHCHECK` with its options"),
    ("healthcheck-none", "`HEALTHCHECK NONE`"),
    ("shell", "`SHELL`"),
    ("cmd-exec", "`CMD` as a JSON array"),
    ("cmd-shell", "`CMD` as a shell line"),
    ("entrypoint-exec", "`ENTRYPOINT` as a JSON array"),
    ("entrypoint-shell", "`ENTRYPOINT` as a shell line"),
    ("entrypoint-reset", "`ENTRYPOINT []` and `CMD []`"),
    ("maintainer", "`MAINTAINER`"),
    ("onbuild", "`ONBUILD`"),
    ("onbuild-arg", "`ONBUILD ARG`"),
    ("whiteout", "files of the base removed or replaced"),
    ("continuation", "continued lines"),
    ("comments", "comments, also between continued lines"),
    ("escape-directive", "the directive `escape`"),
    ("lower-case", "keywords in lower case"),
    ("crlf", "Windows line ends and a byte order mark"),
    ("dockerignore", "`.dockerignore`"),
    ("dockerignore-negation", "`!` in `.dockerignore`"),
    ("dockerignore-deep", "`**` in `.dockerignore`"),
    ("dockerignore-dockerfile", "the Dockerfile itself left out"),
    ("dockerignore-own", "`<Dockerfile>.dockerignore`"),
    ("build-arg", "`--build-arg`"),
    ("target", "`--target`"),
    ("label-flag", "`--label`"),
    ("file-flag", "`--file`"),
    ("platform", "`--platform`"),
    ("squash", "`--squash`"),
    ("cache-from", "`--cache-from`"),
    ("add-host", "`--add-host`"),
    ("shm-size", "`--shm-size`"),
    ("ulimit", "`--ulimit`"),
    ("memory", "`--memory`"),
    ("network-flag", "`--network`"),
    ("stdin", "a Dockerfile from standard input"),
    ("remote-url", "a context from a URL"),
    ("remote-git", "a context from a git repository"),
];

/// Projects that are compared with dockerd in every run; its steps take half a second each.
const SAMPLE: [&str; 5] =
    ["archives", "copy-forms", "env-expansion", "metadata", "ignore-patterns"];

fn blessing() -> bool {
    std::env::var_os("MINKE_BLESS").is_some()
}

/// The projects that were asked for.
fn projects() -> Vec<Project> {
    let wanted = std::env::var("MINKE_CORPUS").unwrap_or_default();
    let mut all = Project::all();
    let whole = wanted.is_empty() || wanted == "1";
    all.retain(|project| whole || project.name.contains(&wanted));
    all
}

/// A project laid out for building.
struct Laid {
    project: Project,
    dir: PathBuf,
    _served: Served,
    site: String,
    stdin: Vec<u8>,
}

impl Laid {
    fn new(project: Project, below: &Path) -> Laid {
        let dir = below.join("corpus").join(&project.name);
        project.copy("context", &dir.join("context"));
        project.serve(&dir.join("site"));
        for before in &project.before {
            project.copy(&before.context, &dir.join(&before.context));
        }
        let served = Served::new(&dir.join("site"));
        let stdin = match &project.stdin {
            Some(name) => std::fs::read(dir.join("context").join(name)).unwrap(),
            None => Vec::new(),
        };
        Laid { site: served.url(), _served: served, project, dir, stdin }
    }

    /// Builds it with whatever runs the CLI.
    fn build(&self, run: &dyn Fn(&[&str], &[u8]) -> Outcome) -> Outcome {
        let path = |name: &str| self.dir.join(name).display().to_string();
        for before in &self.project.before {
            run(&["build", "--tag", &before.tag, &path(&before.context)], b"").ok();
        }
        let mut words = ["build", "--iidfile"].map(str::to_owned).to_vec();
        words.extend([path("id"), "--tag".to_owned(), self.project.tag()]);
        words.extend(self.project.arguments.iter().cloned());
        words.push(self.project.place.clone().unwrap_or_else(|| path("context")));
        let words: Vec<String> = words
            .into_iter()
            .map(|word| match word.as_str() {
                // The file of a `-f` is named from the context, as people do from their own folder.
                name if self.is_file(name) => path(&format!("context/{name}")),
                other => other.replace("{site}", &self.site).replace("{arch}", architecture()),
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        run(&words, &self.stdin)
    }

    fn is_file(&self, word: &str) -> bool {
        self.project.place.is_none()
            && word.contains('/')
            && !word.starts_with('/')
            && self.dir.join("context").join(word).is_file()
    }

    /// What an engine made of it.
    fn picture(&self, run: &dyn Fn(&[&str], &[u8]) -> Outcome) -> Picture {
        let archive = self.dir.join("saved.tar");
        run(&["save", "--output", archive.to_str().unwrap(), &self.project.tag()], b"").ok();
        let bytes = std::fs::read(&archive).unwrap();
        std::fs::remove_file(&archive).unwrap();
        Picture::read(&bytes, &image_layer())
    }

    /// The id that the last build wrote.
    fn id(&self) -> String {
        std::fs::read_to_string(self.dir.join("id")).unwrap()
    }

    fn expected(&self) -> PathBuf {
        self.project.dir().join("expected.txt")
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn text(picture: &Picture) -> String {
    format!("{}\n{}", picture.config, picture.tree).replace(architecture(), "{arch}")
}

/// The headers of the CLI's requests, as its configuration file has them.
fn set_headers(site: &Site, headers: &BTreeMap<String, String>) {
    let dir = site.dir.path().join("docker-config");
    std::fs::create_dir_all(&dir).unwrap();
    let config = serde_json::json!({ "HttpHeaders": headers });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn every_project_looks_as_expected_with_both_clis_and_after_a_restart() {
    let mut site = Site::new();
    let laid: Vec<Laid> =
        projects().into_iter().map(|project| Laid::new(project, site.dir.path())).collect();
    let (mut wrong, mut ids) = (Vec::new(), BTreeMap::new());
    for one in &laid {
        set_headers(&site, &one.project.headers);
        let name = &one.project.name;
        let run = |words: &[&str], input: &[u8]| site.command(&docker28(), words, input);
        let outcome = one.build(&run);
        if outcome.code != 0 {
            wrong.push(format!("{name} is not built:\n{}{}", outcome.stdout, outcome.stderr));
            continue;
        }
        let picture = one.picture(&run);
        let text = text(&picture);
        if blessing() {
            std::fs::write(one.expected(), &text).unwrap();
        }
        let expected = std::fs::read_to_string(one.expected()).unwrap_or_default();
        if text != expected {
            wrong.push(format!("{name} is\n{text}\nexpected\n{expected}"));
        }
        if one.project.layers.is_some_and(|layers| layers != picture.layers) {
            wrong.push(format!("{name} has {} layers", picture.layers));
        }
        let first = one.id();
        let [_, older] = clis();
        let again = one.build(&|words, input| site.command(&older, words, input));
        if first != one.id() || again.stdout.contains("Running in") {
            wrong.push(format!("{name} is another image the second time:\n{}", again.stdout));
        }
        ids.insert(name.clone(), first);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n────\n"));
    site.stop_engine();
    site.start_engine();
    for one in &laid {
        set_headers(&site, &one.project.headers);
        one.build(&|words, input| site.command(&docker28(), words, input)).ok();
        assert_eq!(one.id(), ids[&one.project.name], "{} after a restart", one.project.name);
    }
}

#[test]
fn dockers_own_classic_builder_makes_the_same() {
    let all = std::env::var_os("MINKE_CORPUS").is_some();
    let site = Site::empty(&[]);
    let dockerd = Dockerd::start(&site);
    let run = |words: &[&str], input: &[u8]| dockerd.docker(&docker28(), words, input);
    run(&["load"], &image_archive()).ok();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for project in projects() {
        if !project.dockerd || !(all || SAMPLE.contains(&project.name.as_str())) {
            continue;
        }
        let one = Laid::new(project, site.dir.path());
        let name = &one.project.name;
        let outcome = one.build(&run);
        if outcome.code != 0 {
            wrong.push(format!("{name}: {}{}", outcome.stdout, outcome.stderr));
            continue;
        }
        let text = text(&one.picture(&run));
        compared += 1;
        let expected = std::fs::read_to_string(one.expected()).unwrap();
        if text != expected {
            wrong.push(format!("{name} is\n{text}\nours is\n{expected}"));
        }
    }
    report(&format!("{compared} projects, of which {} differ.\n", wrong.len()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n────\n"));
}

#[test]
fn the_table_names_a_project_for_every_feature() {
    let projects = Project::all();
    let known: BTreeSet<&str> = FEATURES.iter().map(|(name, _)| *name).collect();
    assert_eq!(known.len(), FEATURES.len(), "a feature is listed twice");
    for project in &projects {
        for feature in &project.features {
            assert!(known.contains(feature.as_str()), "{}: {feature}", project.name);
        }
    }
    let table = table(&projects);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/dockerfile-corpus.md");
    if blessing() {
        std::fs::write(&file, &table).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(written, table, "write {} anew with MINKE_BLESS=1", file.display());
}

fn table(projects: &[Project]) -> String {
    let mut text = String::from(
        "# The Dockerfile corpus\n\n\
         Written by the tests of `engine/daemon` (`MINKE_BLESS=1`), which build every project of\n\
         `engine/daemon/tests/corpus` with the docker CLIs 28 and 20.10 and compare configuration and files\n\
         with what is expected. Those marked ✓ are also built by Docker's own classic builder (dockerd\n\
         20.10), with the same result.\n\n\
         | feature | what | projects |\n|---|---|---|\n",
    );
    for (feature, what) in FEATURES {
        let names: Vec<String> = projects
            .iter()
            .filter(|project| project.features.iter().any(|own| own == feature))
            .map(|project| format!("{}{}", project.name, if project.dockerd { " ✓" } else { "" }))
            .collect();
        assert!(!names.is_empty(), "no project shows {feature}");
        writeln!(text, "| {feature} | {what} | {} |", names.join(", ")).unwrap();
    }
    text.push_str("\n| project | what it is | dockerd 20.10 |\n|---|---|---|\n");
    for project in projects {
        let dockerd = project.not_dockerd.as_deref().unwrap_or("the same");
        writeln!(text, "| {} | {} | {dockerd} |", project.name, project.about).unwrap();
    }
    text
}
