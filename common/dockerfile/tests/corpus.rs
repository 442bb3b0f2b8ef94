//! Dockerfiles as people write them: each reads, prints and reads back; the numbers are what a
//! person counts in the file.

use minke_common_dockerfile::parse;

fn check(name: &str, text: &str, stages: usize, instructions: usize, warnings: usize) {
    let file = parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let count: usize = file.stages.iter().map(|s| s.nodes.len()).sum();
    assert_eq!((file.stages.len(), count), (stages, instructions), "{name}");
    assert_eq!(file.warnings.len(), warnings, "{name}: {:?}", file.warnings);
    let printed = file.to_string();
    let again = parse(&printed).unwrap_or_else(|e| panic!("{name}: {e}\n{printed}"));
    assert_eq!(again.to_string(), printed, "{name}");
    for (a, b) in file.stages.iter().zip(&again.stages) {
        assert_eq!(a.from, b.from, "{name}");
        for (a, b) in a.nodes.iter().zip(&b.nodes) {
            assert_eq!(a.instruction, b.instruction, "{name}");
        }
    }
}

macro_rules! corpus {
    ($($test:ident: $file:literal, $stages:literal, $instructions:literal;)*) => {$(
        #[test]
        fn $test() {
            check($file, include_str!(concat!("corpus/", $file)), $stages, $instructions, 0);
        }
    )*};
}

corpus! {
    node_multistage: "node-multistage.Dockerfile", 4, 12;
    go_scratch: "go-scratch.Dockerfile", 2, 10;
    python_apt: "python-apt.Dockerfile", 1, 11;
    heredocs: "heredocs.Dockerfile", 1, 6;
    balena_template: "balena.template.Dockerfile", 1, 6;
    windows: "windows.Dockerfile", 1, 4;
    odd_but_legal: "odd-but-legal.Dockerfile", 1, 19;
    crlf: "crlf.Dockerfile", 1, 2;
    rust_cache: "rust-cache.Dockerfile", 4, 11;
}
