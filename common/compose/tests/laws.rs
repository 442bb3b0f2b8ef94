//! Laws that hold for every text.

use minke_common_compose::parse;
use proptest::prelude::*;

fn file() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "services:",
        "volumes:",
        "networks:",
        "  a:",
        "  b: &b",
        "  c: *b",
        "    image: x",
        "    build: .",
        "    build:",
        "      context: ../x",
        "      context: x",
        "    <<: *b",
        "    ports: [1, '2:3', 4-5]",
        "    volumes: ['v:/x', ./a:/b]",
        "  v:",
        "  v: {}",
        "    environment: {A: 1}",
        "    environment: [A]",
        "    depends_on: [a, b]",
        "    restart: no",
        "    network_mode: service:a",
        "    command: [a, b]",
        "- x",
        "{",
        "]",
        "    healthcheck: {test: x}",
        "? x",
        "!!binary y",
        "    tty: {a: [b]}",
        "\t",
        "'",
        "\"",
        "    ulimits: {a: 1}",
        "%YAML 1.2",
        "---",
        "    mem_limit: 1g",
        "# c",
    ]);
    prop::collection::vec(line, 0..20).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_text_panics_and_no_path_leads_outside(text in file(), noise in "\\PC{0,120}") {
        let _ = parse(&noise);
        for text in [text.clone(), format!("services:\n  a:\n    image: x\n{text}")] {
            match parse(&text) {
                Ok(composition) => {
                    for service in &composition.services {
                        prop_assert!(service.build.is_some() || service.image.is_some());
                        if let Some(build) = &service.build {
                            prop_assert!(!build.context.split('/').any(|p| p == ".."));
                            prop_assert!(!build.context.starts_with('/'));
                        }
                    }
                }
                Err(error) => {
                    prop_assert!(error.line >= 1 && error.line <= text.lines().count() + 2, "{}", error);
                    prop_assert!(error.column >= 1);
                }
            }
        }
    }

    #[test]
    fn what_is_stored_reads_back_the_same(text in file()) {
        if let Ok(composition) = parse(&text) {
            let stored = composition.to_json();
            let again = parse(&stored.to_string())
                .map_err(|e| TestCaseError::fail(format!("{e}\n{stored}")))?;
            prop_assert_eq!(again.to_json(), stored);
        }
    }
}
