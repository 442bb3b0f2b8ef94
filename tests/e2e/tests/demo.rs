//! The demo's program itself: what it leaves running, and that nothing stays when it is to go.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use minke_tests_e2e::Demo;
use minke_tests_testkit::{Signal, kill, signal, wait_until};

const LIMIT: Duration = Duration::from_secs(120);

/// A demo in the background, with its output in a file.
fn spawn(demo: &Demo, words: &[&str]) -> Result<(std::process::Child, tempfile::NamedTempFile)> {
    let log = tempfile::NamedTempFile::new()?;
    let out = log.reopen()?;
    let child = demo.command(words).stdout(out.try_clone()?).stderr(out).spawn();
    Ok((child.context("cannot start the demo")?, log))
}

/// Waits until a step of a build runs: a push is under way.
fn wait_for_a_step(demo: &Demo) -> Result<()> {
    wait_until("a step of the build", LIMIT, || {
        let entries = std::fs::read_dir(demo.steps());
        Ok(entries.is_ok_and(|mut it| it.next().is_some()).then_some(()))
    })
}

#[test]
fn a_detached_demo_runs_on_until_it_is_stopped() -> Result<()> {
    let mut demo = Demo::new()?;
    let before = demo.host.run(&["nft", "list", "ruleset"])?;
    let said = demo.run(&["--detach"])?;
    ensure!(said.contains("--stop` removes it"), "{said}");
    let page = said.lines().find_map(|line| line.trim().strip_prefix("the page"));
    let page = page.with_context(|| format!("no page is named: {said}"))?.trim();
    ensure!(demo.host.sees(page), "{page} does not answer when the demo has returned");
    demo.note();
    let said = demo.run(&["--stop"])?;
    ensure!(said.contains("The demo is removed."), "{said}");
    demo.is_gone()?;
    assert_eq!(demo.host.run(&["nft", "list", "ruleset"])?, before);
    let said = demo.run(&["--stop"])?;
    ensure!(said.contains("There is no demo here."), "{said}");
    Ok(())
}

#[test]
fn a_demo_that_is_killed_in_the_middle_of_a_push_is_cleaned_up() -> Result<()> {
    let mut demo = Demo::new()?;
    let before = demo.host.run(&["nft", "list", "ruleset"])?;
    let (mut child, log) = spawn(&demo, &["--exit"])?;
    let begun = wait_for_a_step(&demo);
    demo.note();
    let was_there = kill(child.id() as i32)?;
    child.wait()?;
    let said = std::fs::read_to_string(log.path())?;
    begun.with_context(|| said.clone())?;
    ensure!(was_there && !said.contains("the page answers"), "{said}");
    let said = demo.run(&["--stop"])?;
    ensure!(said.contains("The demo is removed."), "{said}");
    demo.is_gone()?;
    assert_eq!(demo.host.run(&["nft", "list", "ruleset"])?, before);
    Ok(())
}

#[test]
fn a_demo_that_is_interrupted_removes_everything_itself() -> Result<()> {
    let mut demo = Demo::new()?;
    let before = demo.host.run(&["nft", "list", "ruleset"])?;
    // It would stay until it is interrupted, however far it comes.
    let (mut child, log) = spawn(&demo, &[])?;
    let begun = wait_for_a_step(&demo);
    demo.note();
    signal(child.id() as i32, Signal::INT)?;
    child.wait()?;
    let said = std::fs::read_to_string(log.path())?;
    begun.with_context(|| said.clone())?;
    ensure!(said.contains("nothing of the demo is left on this machine"), "{said}");
    demo.is_gone()?;
    assert_eq!(demo.host.run(&["nft", "list", "ruleset"])?, before);
    Ok(())
}
