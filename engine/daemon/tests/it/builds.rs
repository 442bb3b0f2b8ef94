//! Builds as people and programs ask for them: what the CLI shows, contexts that stand elsewhere, secrets
//! that stay secret, and contexts and Dockerfiles made to do harm.

use std::io::Write;
use std::path::Path;

use serde_json::Value;
use tar::EntryType;

use crate::support::{Outcome, Served, Site, docker28, wait_until};

/// A context as a client sends it.
#[derive(Default)]
struct Context(Vec<(EntryType, String, Vec<u8>)>);

impl Context {
    fn of(dockerfile: &str) -> Context {
        Context::default().file("Dockerfile", dockerfile.as_bytes())
    }

    fn file(mut self, path: &str, content: &[u8]) -> Context {
        self.0.push((EntryType::Regular, path.to_owned(), content.to_vec()));
        self
    }

    fn link(mut self, kind: EntryType, path: &str, to: &str) -> Context {
        self.0.push((kind, path.to_owned(), to.as_bytes().to_vec()));
        self
    }

    /// The archive, with names that no honest program writes.
    fn tar(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, content) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            let linked = *kind != EntryType::Regular;
            if linked {
                header.set_link_name_literal(content).unwrap();
            }
            let body: &[u8] = if linked { b"" } else { content };
            header.set_size(body.len() as u64);
            header.set_cksum();
            builder.append(&header, body).unwrap();
        }
        builder.into_inner().unwrap()
    }
}

/// What the API answers to a build.
struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    /// The id of the image, which must have been built.
    #[track_caller]
    fn id(&self) -> String {
        let lines = self.text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let id = lines.filter_map(|line| Some(line["aux"]["ID"].as_str()?.to_owned())).next_back();
        id.unwrap_or_else(|| panic!("{} {}", self.status, self.text))
    }

    /// The message of a build that failed, at once or later.
    #[track_caller]
    fn refusal(&self) -> String {
        let lines = self.text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let words = |line: Value| {
            let said = line["error"].as_str().or(line["message"].as_str())?;
            Some(said.to_owned())
        };
        lines.filter_map(words).next_back().unwrap_or_else(|| panic!("built: {}", self.text))
    }
}

fn post(site: &Site, query: &str, headers: &[&str], body: &[u8]) -> Answer {
    let socket = site.socket().display().to_string();
    let url = format!("http://engine/v1.47/build?{query}");
    let mut words =
        vec!["--silent", "--show-error", "--unix-socket", &socket, "--write-out", "\n%{http_code}"];
    words.extend(["--request", "POST", "--header", "Content-Type: application/x-tar"]);
    for header in headers {
        words.extend(["--header", header]);
    }
    words.extend(["--data-binary", "@-", &url]);
    let said = site.command_of("curl", &words, body).ok();
    let (text, status) = said.trim_end().rsplit_once('\n').unwrap();
    Answer { status: status.parse().unwrap(), text: text.to_owned() }
}

fn build(site: &Site, context: &Context) -> Answer {
    post(site, "", &[], &context.tar())
}

/// The output with every hash as `#`.
fn without_hashes(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        let bare = word.trim_end();
        let hash = bare.len() == 12 && bare.chars().all(|c| c.is_ascii_hexdigit());
        out.push_str(&if hash { word.replace(bare, "#") } else { word.to_owned() });
    }
    out
}

fn project(site: &Site, files: &[(&str, &str)]) -> String {
    let dir = site.dir.path().join("project");
    std::fs::create_dir_all(&dir).unwrap();
    for (name, content) in files {
        std::fs::write(dir.join(name), content).unwrap();
    }
    dir.display().to_string()
}

#[test]
fn the_cli_shows_steps_as_it_does_with_docker() {
    let site = Site::new();
    let file = "FROM busybox AS first\nRUN echo hello\nFROM busybox\nENV A=1\nCOPY --from=first /etc/passwd /p\nCMD [\"x\"]\n";
    let dir = project(&site, &[("Dockerfile", file)]);
    let run = |words: &[&str]| -> Outcome { site.docker(&[&["build"], words, &[&dir]].concat()) };
    let said = run(&["--tag", "shown", "--build-arg", "NEVER=used"]).ok();
    let (_, said) = said.split_once("\nStep").unwrap();
    assert_eq!(
        without_hashes(&format!("Step{said}")),
        "Step 1/6 : FROM busybox AS first\n ---> #\nStep 2/6 : RUN echo hello\n ---> Running in #\nhello\n\
         Removing intermediate container #\n ---> #\nStep 3/6 : FROM busybox\n ---> #\nStep 4/6 : ENV A=1\n ---> #\n\
         Step 5/6 : COPY --from=first /etc/passwd /p\n ---> #\nStep 6/6 : CMD [\"x\"]\n ---> #\n\
         [Warning] One or more build-args [NEVER] were not consumed\n\
         Successfully built #\nSuccessfully tagged shown:latest\n"
    );
    let id = run(&["--quiet"]).ok();
    assert_eq!(id.trim(), site.docker(&["inspect", "--format", "{{.Id}}", "shown"]).ok().trim());
    project(&site, &[("Dockerfile", "FROM busybox\nRUN echo bad && exit 42\n")]);
    let failed = run(&[]);
    assert_eq!(failed.code, 42, "{failed:?}");
    assert!(failed.stderr.contains("returned a non-zero code: 42"), "{failed:?}");
    project(&site, &[("Dockerfile", "FROM busybox\nRUNN x\n")]);
    let failed = run(&[]);
    assert!(failed.stderr.contains("line 2, column 1: unknown instruction `RUNN`"), "{failed:?}");
}

#[test]
fn the_daemon_fetches_contexts_itself() {
    let site = Site::new();
    let served = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(served.path().join(name), bytes).unwrap();
    let context = Context::of("FROM scratch\nCOPY f /f\n").file("f", b"fetched").tar();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&context).unwrap();
    write("context.tar", &context);
    write("context.tgz", &packed.finish().unwrap());
    write("Dockerfile", b"FROM busybox\nRUN echo alone > /f\n");
    write("broken.tar", &context[..600]);
    let web = Served::new(served.path());
    let remote = |path: &str| post(&site, &format!("remote={}/{path}", web.url()), &[], b"");
    let first = remote("context.tar").id();
    assert_eq!(remote("context.tgz").id(), first, "packed or not, it is the same context");
    remote("Dockerfile").id();
    let work = served.path().join("work");
    let git = format!(
        "mkdir {0} && cd {0} && mkdir app && echo 'FROM scratch\nCOPY . /' > app/Dockerfile && echo x > app/f \
         && git init -q -b main . && git add . && git -c user.name=t -c user.email=t@e commit -q -m one \
         && git clone -q --bare . ../r.git && git -C ../r.git update-server-info",
        work.display()
    );
    site.command_of("sh", &["-ec", &git], b"").ok();
    remote("r.git%23main:app").id();
    for (path, says) in [
        ("nothing", "404"),
        ("broken.tar", "ends in the middle of an entry"),
        ("r.git%23no-such-branch", "no branch, tag or commit"),
        ("r.git%23main:../..", "Cannot locate specified Dockerfile"),
    ] {
        let answer = remote(path);
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert!(answer.refusal().contains(says), "{path}: {}", answer.text);
    }
    for (address, says) in [
        ("file:///etc", "expected a URL or a git repository"),
        ("git@example.org:a/b.git", "no ssh keys"),
        ("/etc", "expected a URL or a git repository"),
    ] {
        let answer = post(&site, &format!("remote={address}"), &[], b"");
        assert!(answer.refusal().contains(says), "{address}: {}", answer.text);
    }
}

#[test]
fn what_is_left_out_of_a_repository_makes_another_step() {
    let site = Site::new();
    let served = tempfile::tempdir().unwrap();
    let git = format!(
        "cd {} && mkdir work && cd work && echo x > a.md && echo x > a.c \
         && git init -q -b main . && git add . && git -c user.name=t -c user.email=t@e commit -q -m one \
         && git clone -q --bare . ../r.git && git -C ../r.git update-server-info",
        served.path().display()
    );
    site.command_of("sh", &["-ec", &git], b"").ok();
    let web = Served::new(served.path());
    for (flag, seen) in
        [("--exclude=*.md ", "a.c\n"), ("", "a.c\na.md\n"), ("--exclude=*.c ", "a.md\n")]
    {
        let file = format!("FROM busybox\nADD {flag}{}/r.git /src\n", web.url());
        post(&site, "t=taken", &[], &Context::of(&file).tar()).id();
        assert_eq!(site.docker(&["run", "--rm", "taken", "ls", "/src"]).ok(), seen, "{flag}");
    }
}

#[test]
fn a_secret_stays_nowhere() {
    let site = Site::new();
    let file = "FROM busybox\nRUN --mount=type=secret,id=token sha256sum /run/secrets/token | grep -q ^bf496b76b91b8282 && echo seen\n";
    // {"token": base64 of "s3cret-value"}
    let header = "X-Minke-Build-Secrets: eyJ0b2tlbiI6ImN6TmpjbVYwTFhaaGJIVmwifQ==";
    let answer = post(&site, "t=secret", &[header], &Context::of(file).tar());
    answer.id();
    assert!(answer.text.contains("seen"), "{}", answer.text);
    let data = site.data().display().to_string();
    let found = site.command_of("grep", &["-r", "-l", "s3cret-value", &data], b"");
    assert_eq!((found.code, found.stdout.as_str()), (1, ""), "{found:?}");
    assert!(!site.log().contains("s3cret-value"));
    for (value, says) in [("!!", "is no base64"), ("e30x", "holds no JSON of the right shape")] {
        let header = format!("X-Minke-Build-Secrets: {value}");
        let answer = post(&site, "", &[&header], &Context::of(file).tar());
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.refusal().contains(says), "{}", answer.text);
    }
}

#[test]
fn contexts_that_lead_outside_are_refused_or_stay_inside() {
    let site = Site::new();
    let outside = site.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("host-file"), "of the host").unwrap();
    let out = outside.display().to_string();
    let plain = || Context::of("FROM scratch\nCOPY . /\n");
    for (context, says) in [
        (plain().file("../escaped", b"x"), "the path `../escaped` leads outside"),
        (plain().file("a/../../escaped", b"x"), "leads outside"),
        (plain().link(EntryType::Link, "h", &format!("{out}/host-file")), "cannot be read"),
        (plain().link(EntryType::Link, "h", "../../../../etc/passwd"), "leads outside"),
        (Context::of("FROM scratch\nCOPY ../x /\n"), "forbidden path outside the build context"),
        (
            Context::of("FROM scratch\nCOPY l/host-file /\n").link(EntryType::Symlink, "l", &out),
            "file does not exist",
        ),
        (Context::of(&format!("FROM scratch\nADD file://{out}/host-file /\n")), "does not exist"),
        (
            Context::of(&format!("FROM busybox\nRUN --mount=source={out},target=/m ls /m\n")),
            "No such file",
        ),
        (
            Context::of("FROM busybox\nRUN --mount=source=l,target=/m ls /m\n").link(
                EntryType::Symlink,
                "l",
                &out,
            ),
            "No such file",
        ),
    ] {
        let answer = build(&site, &context);
        assert!(answer.refusal().contains(says), "{says}: {}", answer.text);
    }
    // Through links in the image and in the context's archives things go where they lead in the image.
    let up = "../".repeat(30);
    let climbing = format!(
        "FROM busybox\nRUN ln -s {out} /absolute && ln -s {up}{} /relative && mkdir -p {out}\n\
         COPY f /absolute/copied\nCOPY f /relative/climbed\nADD a.tar /\nWORKDIR /absolute/made\nRUN touch by-run\n",
        out.trim_start_matches('/')
    );
    let archive = Context::default()
        .link(EntryType::Symlink, "through", &out)
        .file("through/unpacked", b"x")
        .tar();
    let context = Context::of(&climbing).file("f", b"x").file("a.tar", &archive);
    build(&site, &context).id();
    let left: Vec<_> =
        std::fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["host-file"], "something came out");
    assert!(!site.dir.path().join("escaped").exists());
}

#[test]
fn what_is_too_much_is_refused_with_its_limit() {
    let site = Site::new();
    let many = |line: &str, count: usize| line.repeat(count);
    let nested = format!("FROM scratch\nENV A={}x{}\n", many("${B:-", 100), many("}", 100));
    let deep = format!("{}f", many("d/", 200));
    let zeros = bomb();
    for (context, says) in [
        (
            Context::of(&format!("FROM scratch\n#{}\n", many("x", 2 << 20))),
            "1048576 bytes; that is the limit",
        ),
        (
            Context::of(&format!("FROM scratch\n{}", many("USER 1\n", 5000))),
            "more than 4096 instructions",
        ),
        (Context::of(&many("FROM scratch\n", 300)), "more than 256 stages"),
        (Context::of(&nested), "nested deeper than 32"),
        (
            Context::of("FROM scratch\nCOPY . /\n").file(".dockerignore", &vec![b'x'; 300 << 10]),
            "262144 bytes; that is the limit",
        ),
        (
            Context::of("FROM scratch\nCOPY . /\n")
                .file(".dockerignore", many("x\n", 2000).as_bytes()),
            "limit of 1024 patterns",
        ),
        (
            Context::of("FROM scratch\nADD bomb.tar.gz /\n").file("bomb.tar.gz", &zeros),
            "bytes; that is the limit",
        ),
        (Context::of("FROM scratch\nONBUILD ONBUILD RUN x\n"), "ONBUILD ONBUILD is not allowed"),
        (Context::of("FROM scratch\nEXPOSE 1-65535\n"), "invalid port"),
    ] {
        let answer = build(&site, &context);
        assert!(answer.refusal().contains(says), "{says}: {}", answer.text);
    }
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in [("Dockerfile", "FROM scratch\nCOPY . /\n"), (deep.as_str(), "x")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let answer = post(&site, "", &[], &tar.into_inner().unwrap());
    assert!(answer.refusal().contains("deeper than 128"), "{}", answer.text);
    let triggers = format!("FROM scratch\n{}", many("ONBUILD USER 1\n", 300));
    post(&site, "t=triggers", &[], &Context::of(&triggers).tar()).id();
    let answer = build(&site, &Context::of("FROM triggers\n"));
    assert!(answer.refusal().contains("300 triggers; the limit is 256"), "{}", answer.text);
    wait_until("the end of every build's directory", || {
        std::fs::read_dir(site.data().join("build/builds")).unwrap().next().is_none().then_some(())
    });
}

#[test]
fn an_image_has_no_more_layers_than_docker_takes() {
    let site = Site::new();
    let layers: String = (0..126).map(|n| format!("COPY <<F /{n}\n{n}\nF\n")).collect();
    let answer = build(&site, &Context::of(&format!("FROM scratch\n{layers}")));
    assert!(answer.refusal().contains("more than 125 layers"), "{}", answer.text);
}

/// A small archive that says it holds a petabyte.
fn bomb() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_mode(0o644);
    header.set_size(1 << 50);
    header.set_cksum();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(header.as_bytes()).unwrap();
    packed.write_all(&vec![0u8; 64 << 20]).unwrap();
    packed.finish().unwrap()
}

#[test]
fn a_failed_or_left_build_leaves_nothing() {
    let site = Site::new();
    let before = site.traces();
    let dir = project(&site, &[("Dockerfile", "FROM busybox\nRUN echo started; sleep 1000\n")]);
    let mut child = site.spawn(&docker28(), &["build", &dir]);
    let builds = site.data().join("build/containers");
    let running = || std::fs::read_dir(&builds).ok()?.next().map(drop);
    wait_until("the step's container", running);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of the step's container", || running().is_none().then_some(()));
    wait_until("the end of its mounts and cgroups", || (site.traces() == before).then_some(()));
    let work: &Path = &site.data().join("build/builds");
    wait_until("the end of the build's directory", || {
        std::fs::read_dir(work).unwrap().next().is_none().then_some(())
    });
}

/// As a server asks its build worker: the memory is said with each build, the processes are the engine's.
#[test]
fn a_step_has_2_gib_of_memory_if_that_is_asked_for_and_8192_processes_anyway() {
    let site = Site::empty(&["--build-worker", "--userns-remap", "default"]);
    site.load_image();
    let (memory, pids) = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        true => ("memory.max", "pids.max"),
        false => ("memory/memory.limit_in_bytes", "pids/pids.max"),
    };
    let step = |what: &str, query: &str| {
        let file = format!("FROM busybox\nRUN echo limit $(cat /sys/fs/cgroup/{what}).\n");
        let said = post(&site, query, &[], &Context::of(&file).tar());
        said.id();
        let (_, rest) = said.text.split_once("\"limit ").unwrap_or_else(|| panic!("{}", said.text));
        rest.split_once('.').unwrap().0.to_owned()
    };
    assert_eq!(step(memory, "memory=2147483648"), "2147483648");
    for query in ["memory=2147483648&nocache=1", "nocache=1"] {
        assert_eq!(step(pids, query), "8192", "{query}");
    }
}
