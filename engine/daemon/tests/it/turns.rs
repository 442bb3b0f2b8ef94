//! Calls that meet each other at one container, and calls whose client does not wait for the answer.

use crate::support::{Site, ask};

#[test]
fn a_start_behind_a_removal_starts_nothing() {
    let site = Site::new();
    for round in 0..4 {
        site.docker(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
        let begin = || loop {
            let answer = ask(&site, "POST", "/containers/box/start", None);
            match answer.status {
                // It runs; or it is on its way out, or gone.
                204 | 304 | 409 => {}
                404 => return,
                _ => panic!("round {round}: {} {}", answer.status, answer.text),
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(begin);
            }
            let removed = ask(&site, "DELETE", "/containers/box?force=1", None);
            assert_eq!(removed.status, 204, "round {round}: {}", removed.text);
        });
        assert_eq!(site.remains(), Vec::<String>::new(), "round {round}");
        assert_eq!(std::fs::read_dir(site.data().join("containers")).unwrap().count(), 0);
    }
}
