//! Whatever ends a site, and however: nothing of it stays on the machine.

use anyhow::Result;
use minke_tests_e2e::{DEVICE, TestSite};
use minke_tests_testkit::{FLEET, Signal, Site, Traces, signal};

/// A site with a device that runs containers; and what the machine was like before.
fn running() -> Result<(TestSite, Traces)> {
    let folder = TestSite::folder()?;
    let mut traces = Traces::before(folder.path())?;
    let mut test = TestSite::start_in(folder)?;
    test.site.add_device(FLEET, DEVICE)?;
    test.weather.push(&test.site)?;
    test.weather.wait_for_answer(&test.site, DEVICE)?;
    traces.note(&test.site);
    // The bridge, the device's link, the device's engine, the builder's.
    assert_eq!(traces.noted(), 4, "{traces:?}");
    assert!(!traces.left()?.is_empty(), "a running site leaves no traces: {traces:?}");
    Ok((test, traces))
}

#[test]
fn a_site_that_is_stopped_leaves_nothing() -> Result<()> {
    let (test, traces) = running()?;
    test.site.stop()?;
    assert_eq!(traces.left()?, [""; 0]);
    Ok(())
}

#[test]
fn of_a_site_whose_processes_were_killed_nothing_is_left_after_cleaning_up() -> Result<()> {
    let (test, traces) = running()?;
    let inside = test.inside()?;
    let pids = [test.site.device_pid(DEVICE)?, test.site.cloud_pid()?];
    let applets = ["engine", "supervisor"].into_iter().filter_map(|name| inside.applet(name));
    for pid in applets.chain(pids) {
        signal(pid, Signal::KILL)?;
    }
    let TestSite { site, folder, .. } = test;
    // As when the demo itself is killed.
    site.leave();
    Site::clean(folder.path())?;
    assert_eq!(traces.left()?, [""; 0]);
    Site::clean(folder.path())
}
