use super::*;

fn names() -> Vec<ServiceName> {
    ["api", "web"].map(|name| name.parse().unwrap()).to_vec()
}

#[test]
fn all_locks_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let (root, app) = (dir.path(), AppId::new(7));
    assert!(take(root, app, &names(), false).unwrap());
    assert_eq!(state(root, app), Locks::Ours);
    assert!(take(root, app, &names(), false).unwrap(), "taking twice is taking once");
    release(root, app).unwrap();
    assert_eq!(state(root, app), Locks::Free);

    let theirs = service_dir(root, app, &names()[1]).join("updates.lock");
    fs::write(&theirs, "").unwrap();
    assert!(!take(root, app, &names(), false).unwrap());
    assert_eq!(state(root, app), Locks::Theirs);
    fs::remove_file(&theirs).unwrap();
    assert_eq!(state(root, app), Locks::Free, "the other service's lock was given back");
}

#[test]
fn force_removes_a_services_lock() {
    let dir = tempfile::tempdir().unwrap();
    let (root, app) = (dir.path(), AppId::new(7));
    prepare(root, app, &names()[0]).unwrap();
    fs::write(service_dir(root, app, &names()[0]).join("resin-updates.lock"), "").unwrap();
    assert!(take(root, app, &names(), true).unwrap());
    assert_eq!(state(root, app), Locks::Ours);
}

#[test]
fn another_app_is_not_concerned() {
    let dir = tempfile::tempdir().unwrap();
    assert!(take(dir.path(), AppId::new(7), &names(), false).unwrap());
    assert_eq!(state(dir.path(), AppId::new(8)), Locks::Free);
}

/// Fails instead of hanging when `work` waits for somebody at the other end of a pipe.
fn without_waiting<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    result.recv_timeout(std::time::Duration::from_secs(60)).expect("it waits for a pipe")
}

fn make_pipe(path: &Path) {
    let (kind, mode) = (rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

/// Every name that this supervisor gave or gives to a file that it makes.
const TRAPS: [&str; 3] = ["updates.minke", "resin-updates.minke", IN_MAKING];

#[test]
fn a_link_in_a_services_directory_leads_to_no_file_of_the_host() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let (root, app) = (dir.path().join("locks"), AppId::new(7));
    let precious = dir.path().join("config.json");
    fs::write(&precious, "precious").unwrap();
    let owner_before = fs::metadata(&precious).unwrap().uid();
    prepare(&root, app, &names()[0]).unwrap();
    let of_service = service_dir(&root, app, &names()[0]);
    for name in TRAPS {
        symlink(&precious, of_service.join(name)).unwrap();
    }
    assert!(take(&root, app, &names(), false).unwrap());
    assert_eq!(state(&root, app), Locks::Ours);
    release(&root, app).unwrap();

    symlink(&precious, of_service.join("updates.lock")).unwrap();
    assert_eq!(state(&root, app), Locks::Theirs);
    assert!(!take(&root, app, &names(), false).unwrap());
    assert!(take(&root, app, &names(), true).unwrap());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(fs::metadata(&precious).unwrap().uid(), owner_before);
}

#[test]
fn a_pipe_in_a_services_directory_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (root, app) = (dir.path().to_owned(), AppId::new(7));
    prepare(&root, app, &names()[0]).unwrap();
    let of_service = service_dir(&root, app, &names()[0]);
    for name in TRAPS.iter().chain(&["updates.lock"]) {
        make_pipe(&of_service.join(name));
    }
    let taken = without_waiting(move || {
        let (unforced, forced) =
            (take(&root, app, &names(), false), take(&root, app, &names(), true));
        (unforced.unwrap(), forced.unwrap(), state(&root, app))
    });
    assert_eq!(taken, (false, true, Locks::Ours));
}

#[test]
fn what_took_the_place_of_a_file_that_was_looked_at_is_no_mark() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link, pipe) =
        (dir.path().join("real"), dir.path().join("link"), dir.path().join("pipe"));
    fs::write(&real, MARK).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    make_pipe(&pipe);
    assert!(is_marked(&real).unwrap());
    assert!(is_marked(&link).is_err());
    assert!(!without_waiting(move || is_marked(&pipe)).unwrap());
    fs::write(&real, format!("{MARK}more")).unwrap();
    assert!(!is_marked(&real).unwrap());
}

#[test]
fn what_a_crash_left_in_the_making_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (root, app) = (dir.path(), AppId::new(7));
    assert!(take(root, app, &names(), false).unwrap());
    let lock = service_dir(root, app, &names()[0]).join("updates.lock");
    let left = app_dir(root, app).join(IN_MAKING);
    fs::hard_link(&lock, &left).unwrap();
    fs::remove_file(service_dir(root, app, &names()[1]).join("updates.lock")).unwrap();
    assert!(take(root, app, &names(), false).unwrap());
    assert_eq!(state(root, app), Locks::Ours);
    assert!(!left.exists());
}

#[test]
fn the_directories_of_an_app_are_made_again_to_lock_it() {
    let dir = tempfile::tempdir().unwrap();
    let (root, app) = (dir.path(), AppId::new(7));
    let engines = service_dir(root, app, &names()[0]);
    fs::create_dir_all(&engines).unwrap();
    fs::set_permissions(&engines, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(take(root, app, &names(), false).unwrap());
    assert_eq!(state(root, app), Locks::Ours);
    for name in names() {
        let found = fs::metadata(service_dir(root, app, &name)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, OPEN_TO_ALL);
    }
}
