//! Instructions against their reference: generated lines are given to dockerd's `import --change`, which
//! reads them as a Dockerfile's, and to our builder; both make the same configuration or refuse.
//!
//! `MINKE_SEEDS` is how many lists of lines are tried.

use serde_json::Value;

use crate::soak::report;
use crate::support::{Dockerd, Numbers, Site, describe, docker28, seeds};

/// What words are made of.
const PIECES: [&str; 28] = [
    "a",
    "b",
    "foo",
    "B1",
    "/p",
    "-",
    "_",
    ".",
    ":",
    "$A",
    "${A}",
    "${B:-d}",
    "${B:+alt}",
    "${A:+alt}",
    "${B}",
    "\\$A",
    "\\\\",
    "\"q w\"",
    "'s w'",
    "'$A'",
    "\"$A\"",
    "\\ ",
    "\\\"",
    "ü",
    "#",
    ",",
    "\"\"",
    "\"\\n\"",
];
const NAMES: [&str; 6] = ["A", "B", "C_1", "d", "e.f", "G-h"];
const PORTS: [&str; 10] = [
    "80",
    "443/tcp",
    "53/udp",
    "8000-8003",
    "${P:-90}",
    "1000-1002/udp",
    "80/TCP",
    "x",
    "70000",
    "9-1",
];
const ARRAYS: [&str; 5] =
    ["[\"a\", \"b c\"]", "[\"/x\"]", "[]", "[ \"$A\" , \"\\\"q\\\"\" ]", "['single']"];
const CHECKS: [&str; 8] = [
    "NONE",
    "CMD true",
    "CMD [\"a\", \"b\"]",
    "--interval=5s --timeout=1m30s CMD x $A",
    "--retries=3 --start-period=250ms CMD x",
    "--interval=1x CMD x",
    "--retries=-1 CMD x",
    "NONE x",
];
const TRIGGERS: [&str; 7] = [
    "RUN a  b",
    "COPY x y",
    "ENV A=\"b c\"",
    "run lower",
    "ONBUILD RUN x",
    "FROM x",
    "CMD [\"a\"]",
];

fn word(numbers: &mut Numbers) -> String {
    let count = 1 + numbers.below(4);
    (0..count).map(|_| numbers.one(&PIECES)).collect()
}

fn words(numbers: &mut Numbers) -> String {
    let count = 1 + numbers.below(3);
    (0..count).map(|_| word(numbers)).collect::<Vec<_>>().join(numbers.one(&[" ", "  ", "\t"]))
}

fn pairs(numbers: &mut Numbers) -> String {
    if numbers.below(4) == 0 {
        return format!("{} {}", numbers.one(&NAMES), words(numbers));
    }
    let count = 1 + numbers.below(3);
    let pair = |_| format!("{}={}", numbers.one(&NAMES), word(numbers));
    (0..count).map(pair).collect::<Vec<_>>().join(" ")
}

/// An instruction. It does not end with an escape, which would continue it.
fn line(numbers: &mut Numbers) -> String {
    let line = instruction(numbers);
    if line.trim_end().ends_with('\\') { format!("{line}end") } else { line }
}

fn instruction(numbers: &mut Numbers) -> String {
    match numbers.below(12) {
        0..=3 => format!("ENV {}", pairs(numbers)),
        4 | 5 => format!("LABEL {}", pairs(numbers)),
        6 => {
            let keyword = numbers.one(&["CMD", "ENTRYPOINT", "cmd"]);
            let array = numbers.below(2) == 0;
            let command = if array { numbers.one(&ARRAYS).to_owned() } else { words(numbers) };
            format!("{keyword} {command}")
        }
        7 => format!("EXPOSE {} {}", numbers.one(&PORTS), numbers.one(&PORTS)),
        8 => {
            let array = numbers.below(3) == 0;
            let paths = if array { numbers.one(&ARRAYS).to_owned() } else { words(numbers) };
            format!("VOLUME {paths}")
        }
        // We refuse a user of two words, which dockerd takes until it is needed.
        9 => format!("USER {}", word(numbers).replace("\\ ", "")),
        10 => format!("HEALTHCHECK {}", numbers.one(&CHECKS)),
        _ => format!("ONBUILD {}", numbers.one(&TRIGGERS)),
    }
}

/// The configuration as text, without the search path that only one of the two adds.
fn configuration(text: &str) -> String {
    let mut config: Value = serde_json::from_str(text).unwrap();
    if let Some(env) = config["Env"].as_array_mut() {
        env.retain(|entry| !entry.as_str().unwrap_or("").starts_with("PATH="));
    }
    describe(&serde_json::json!({ "config": config }))
}

#[test]
fn generated_instructions_make_the_configuration_that_dockerd_makes() {
    let site = Site::empty(&[]);
    let dockerd = Dockerd::start(&site);
    let docker = docker28();
    let inspect = ["image", "inspect", "--format", "{{json .Config}}", "case"];
    let project = site.dir.path().join("project");
    std::fs::create_dir(&project).unwrap();
    let dir = project.display().to_string();
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for seed in 0..seeds(16) {
        let mut numbers = Numbers::new(seed);
        // A refused line hides the others, so lists are short.
        let lines: Vec<String> = (0..1 + numbers.below(4)).map(|_| line(&mut numbers)).collect();
        let text = lines.join("\n");
        let mut import = vec!["import"];
        for line in &lines {
            import.extend(["--change", line]);
        }
        import.extend(["-", "case"]);
        let theirs = dockerd.docker(&docker, &import, &[0; 1024]);
        std::fs::write(project.join("Dockerfile"), format!("FROM scratch\n{text}\n")).unwrap();
        let ours = site.docker(&["build", "--tag", "case", &dir]);
        match (theirs.code, ours.code) {
            (0, 0) => {
                let theirs = configuration(&dockerd.docker(&docker, &inspect, b"").ok());
                let ours = configuration(&site.docker(&inspect).ok());
                if theirs == ours {
                    same += 1;
                } else {
                    wrong.push(format!("{seed}: {text}\ndockerd:\n{theirs}ours:\n{ours}"));
                }
            }
            (0, _) => wrong.push(format!("{seed}: {text}\nours alone refuses: {}", ours.stderr)),
            (_, 0) => {
                wrong.push(format!("{seed}: {text}\ndockerd alone refuses: {}", theirs.stderr))
            }
            _ => refused += 1,
        }
    }
    let differ = wrong.len();
    report(&format!(
        "{same} lists of instructions gave the same configuration, {refused} were refused by both, {differ} differ.\n"
    ));
    assert!(wrong.is_empty(), "{}", wrong.join("\n────\n"));
    assert!(same > 0 && refused > 0, "the generator tries too little");
}
