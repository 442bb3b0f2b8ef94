use super::*;

fn id(text: &str) -> ContainerId {
    ContainerId(text.to_owned())
}

#[test]
fn what_could_not_be_saved_is_remembered_and_saved_with_the_next_change() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("supervisor");
    std::fs::create_dir(&dir).unwrap();
    let memory = Memory::open(&dir);
    memory.stopping(&id("kept"));
    std::fs::rename(&dir, root.path().join("away")).unwrap();
    memory.stopping(&id("new"));
    memory.forget(&id("kept"));
    assert!(memory.was_stopped(&id("new")) && !memory.was_stopped(&id("kept")));

    std::fs::rename(root.path().join("away"), &dir).unwrap();
    assert!(Memory::open(&dir).was_stopped(&id("kept")), "the disk holds what it held");
    memory.forget(&id("never stopped"));
    let again = Memory::open(&dir);
    assert!(again.was_stopped(&id("new")) && !again.was_stopped(&id("kept")));
}

#[tokio::test(start_paused = true)]
async fn a_forced_update_waits_for_its_target_and_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::open(dir.path());
    let app: AppUuid = "app1".parse().unwrap();
    let settled = BTreeSet::from([app.clone()]);
    memory.force_update([app.clone()]);
    memory.tidy(&BTreeSet::new(), &settled);
    assert!(memory.wishes().force.contains(&app), "its target is still to come");
    tokio::time::advance(FORCE_HELD).await;
    memory.tidy(&BTreeSet::new(), &BTreeSet::new());
    assert!(memory.wishes().force.contains(&app), "it is under way");
    memory.tidy(&BTreeSet::new(), &settled);
    assert!(memory.wishes().force.is_empty());
}
