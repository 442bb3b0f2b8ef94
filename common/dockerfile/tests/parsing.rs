//! What is read, and what is said where reading fails.

use minke_common_dockerfile::{
    Command, Healthcheck, Instruction, MountKind, RunNetwork, Source, parse, parse_instruction,
};

fn only(text: &str) -> Instruction {
    let file = parse(&format!("FROM scratch\n{text}")).unwrap();
    file.stages[0].nodes[0].instruction.clone()
}

fn fails(text: &str) -> (usize, usize, String) {
    let error = parse(text).unwrap_err();
    (error.line, error.column, error.to_string())
}

#[test]
fn stages_globals_and_names() {
    let file = parse(
        "ARG V=12\nFROM --platform=linux/arm64 debian:${V} AS Build\nRUN make\nFROM scratch\nCOPY --from=build /a /b\n",
    )
    .unwrap();
    assert_eq!(file.global_args[0].default.as_deref(), Some("12"));
    assert_eq!(file.stages[0].from.name.as_deref(), Some("build"));
    assert_eq!(file.stages[0].from.platform.as_deref(), Some("linux/arm64"));
    let Instruction::Copy(copy) = &file.stages[1].nodes[0].instruction else { panic!() };
    assert_eq!(copy.flags.from.as_deref(), Some("build"));
    assert_eq!((file.stages[1].span.line, file.stages[1].nodes[0].span.line), (4, 5));
}

#[test]
fn continuations_comments_and_empty_lines_join() {
    let Instruction::Run(run) = only(
        "RUN apt-get update && \\\n  # why\n\n    apt-get install -y \\  \n      curl\nUSER a",
    ) else {
        panic!()
    };
    let Command::Shell(text) = run.command else { panic!() };
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words.join(" "), "apt-get update && apt-get install -y curl");
}

#[test]
fn an_escaped_escape_does_not_continue() {
    let file = parse("FROM a\nRUN echo \\\\\nUSER b\n").unwrap();
    assert_eq!(file.stages[0].nodes.len(), 2);
}

#[test]
fn the_escape_directive_changes_it() {
    let file =
        parse("# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nCOPY a `\n c:\\\n").unwrap();
    assert_eq!(file.escape, '`');
    let Instruction::Copy(copy) = &file.stages[0].nodes[0].instruction else { panic!() };
    assert_eq!(copy.dest, "c:\\");
}

#[test]
fn both_forms_of_commands() {
    assert_eq!(
        only("CMD [\"a\", \"b c\"]"),
        Instruction::Cmd(Command::Exec(vec!["a".into(), "b c".into()]))
    );
    assert_eq!(only("CMD a \"b c\""), Instruction::Cmd(Command::Shell("a \"b c\"".into())));
    let file = parse("FROM a\nCMD ['a', 'b']\n").unwrap();
    assert_eq!((file.warnings[0].line, file.warnings[0].column), (2, 5));
}

#[test]
fn heredocs_of_run_and_copy() {
    let Instruction::Run(run) = only("RUN <<EOF\n#!/bin/sh\necho $A\nEOF\nUSER x") else {
        panic!()
    };
    assert_eq!(run.script().unwrap(), "#!/bin/sh\necho $A\n");
    let Instruction::Run(run) = only("RUN cat <<-E > /x && cat <<'F'\n\ta\n\tE\nb\nF\n") else {
        panic!()
    };
    assert_eq!(run.script(), None);
    assert_eq!(run.heredocs.len(), 2);
    assert!(!run.heredocs[1].expand);
    assert_eq!(run.shell_text().unwrap(), "cat <<-E > /x && cat <<'F'\n\ta\nE\nb\nF\n");
    let Instruction::Copy(copy) = only("COPY --chmod=755 <<-a.sh <<b /d/\n\tone\na.sh\ntwo\nb\n")
    else {
        panic!()
    };
    let [Source::Inline(a), Source::Inline(b)] = copy.sources.as_slice() else { panic!() };
    assert_eq!((a.content().as_str(), b.content().as_str()), ("one\n", "two\n"));
    assert_eq!(copy.dest, "/d/");
}

#[test]
fn flags_of_run() {
    let Instruction::Run(run) = only(
        "RUN --mount=type=cache,target=/c,id=x --mount=type=bind,from=b,src=/s,dst=/t,rw --network=none make",
    ) else {
        panic!()
    };
    assert_eq!(run.network, RunNetwork::None);
    assert_eq!(run.mounts[0].kind, MountKind::Cache);
    assert_eq!(run.mounts[1].read_only, Some(false));
    assert_eq!(run.mounts[1].source.as_deref(), Some("/s"));
}

#[test]
fn environment_in_both_forms() {
    let Instruction::Env(pairs) = only("ENV A=\"b c\" D=e\\ f G='x'") else { panic!() };
    let shown: Vec<String> = pairs.iter().map(|p| format!("{}→{}", p.key, p.value)).collect();
    assert_eq!(shown, ["A→\"b c\"", "D→e\\ f", "G→'x'"]);
    let Instruction::Env(pairs) = only("ENV PATH /a:/b and more") else { panic!() };
    assert_eq!((pairs[0].key.as_str(), pairs[0].value.as_str()), ("PATH", "/a:/b and more"));
}

#[test]
fn healthchecks() {
    let Instruction::Healthcheck(Healthcheck::Cmd { interval, retries, timeout, .. }) = only(
        "HEALTHCHECK --interval=1m30s --timeout=250ms --retries=3 CMD curl -f http://localhost",
    ) else {
        panic!()
    };
    assert_eq!((interval, timeout, retries), (Some(90_000_000_000), Some(250_000_000), Some(3)));
    assert_eq!(only("HEALTHCHECK NONE"), Instruction::Healthcheck(Healthcheck::None));
}

#[test]
fn onbuild_keeps_its_text_and_reads_back() {
    let Instruction::Onbuild(text, inner) = only("ONBUILD COPY <<x /y\nz\nx\n") else { panic!() };
    assert_eq!(*inner, parse_instruction(&text, '\\').unwrap());
}

#[test]
fn errors_name_line_column_expectation_and_hint() {
    for (text, line, column, says) in [
        ("", 1, 1, "expected `FROM image`"),
        ("RUN x", 1, 1, "expected FROM or ARG"),
        ("FROM a\n\nRNU x", 3, 1, "did you mean RUN?"),
        ("FROM a\n  COPYY a b", 2, 3, "did you mean COPY?"),
        ("FROM a b", 1, 8, "expected `FROM image [AS name]`"),
        ("FROM a AS 9x", 1, 11, "expected a letter"),
        ("FROM a AS b\nFROM c AS B", 2, 6, "exists already"),
        ("FROM a\nCOPY x", 2, 7, "at least a source and a destination"),
        ("FROM a\nCOPY --form=b x y", 2, 6, "did you mean `--from`?"),
        ("FROM a\nRUN --mount=type=cahce,target=/x y", 2, 5, "expected bind, cache"),
        ("FROM a\nRUN --mount=type=cache y", 2, 5, "expected `target=/path`"),
        ("FROM a\nENV A=b C", 2, 9, "expected key=value"),
        ("FROM a\nENV A=\"b", 2, 5, "quote"),
        ("FROM a\nENV A", 2, 5, "expected `ENV A=value`"),
        ("FROM a\nLABEL a=b \\\n  # c\n  d=e \\\n   oops", 5, 4, "expected key=value"),
        ("FROM a\nRUN", 2, 4, "expected one"),
        ("FROM a\nWORKDIR", 2, 8, "expected a path"),
        ("FROM a\nSHELL /bin/sh", 2, 7, "JSON array"),
        ("FROM a\nRUN cat <<EOF\nx\n", 2, 9, "expected a line `EOF`"),
        ("FROM a\nHEALTHCHECK --interval=x CMD y", 2, 13, "such as 30s"),
        ("FROM a\nHEALTHCHECK FOO", 2, 13, "HEALTHCHECK NONE"),
        ("FROM a\nONBUILD FROM x", 2, 9, "not allowed"),
        ("FROM a\nONBUILD RUMN x", 2, 9, "did you mean RUN?"),
        ("# escape=x\nFROM a", 1, 10, "expected `\\`"),
        ("FROM a\nUSER a b", 2, 8, "expected one argument"),
        ("FROM a\nUSER --x a", 2, 6, "takes no flags"),
    ] {
        let (l, c, message) = fails(text);
        assert!(message.contains(says), "{text:?}: {message}");
        assert_eq!((l, c), (line, column), "{text:?}: {message}");
    }
}

#[test]
fn limits_are_said() {
    let long = format!("FROM a\n#{}", "x".repeat(1 << 20));
    assert!(fails(&long).2.contains("the limit is 1048576"));
    let many = format!("FROM a\n{}", "USER x\n".repeat(4096));
    assert!(fails(&many).2.contains("4096"));
    let stages = "FROM a\n".repeat(257);
    assert!(fails(&stages).2.contains("256"));
}
