//! Which events a filter lets through: the same as with Docker's own daemon.

use crate::support::{Dockerd, Outcome, Site, docker28, image_archive, now};

/// What is told, without what differs from run to run.
const FORM: &str = "{{.Type}} {{.Action}} {{.Scope}} {{if eq .Type \"volume\"}}{{.Actor.ID}}{{end}}\
                    {{index .Actor.Attributes \"name\"}}";

/// Makes and removes things of several kinds, with names that begin alike; the id of a network.
fn work(docker: &dyn Fn(&[&str]) -> Outcome) -> String {
    let network = docker(&["network", "create", "data"]).ok();
    for words in [
        &["network", "create", "other"][..],
        &["volume", "create", "data"],
        &["volume", "create", "database"],
        &["create", "--name", "data", "--network", "other", "busybox", "true"],
        &["tag", "busybox", "data:1"],
        &["rm", "data"],
        &["network", "rm", "data"],
        &["network", "rm", "other"],
        &["volume", "rm", "data"],
        &["volume", "rm", "database"],
    ] {
        docker(words).ok();
    }
    network.trim().to_owned()
}

#[test]
fn filters_of_events_let_through_what_they_do_with_dockers_own_daemon() {
    let site = Site::new();
    let dockerd = Dockerd::start(&site);
    let ours = |words: &[&str]| site.docker(words);
    let theirs = |words: &[&str]| dockerd.docker(&docker28(), words, b"");
    dockerd.docker(&docker28(), &["load"], &image_archive()).ok();
    let since = now();
    let ids = [work(&ours), work(&theirs)];
    let until = now();
    let told = |docker: &dyn Fn(&[&str]) -> Outcome, filters: &[&str], id: &str| -> Vec<String> {
        let filters: Vec<String> =
            filters.iter().map(|filter| filter.replace("ID", &id[..12])).collect();
        let mut words = vec!["events", "--since", &since, "--until", &until, "--format", FORM];
        words.extend(filters.iter().flat_map(|filter| ["--filter", filter.as_str()]));
        docker(&words).ok().lines().map(str::to_owned).collect()
    };
    // How many events each lets through of the eleven.
    for (filters, count) in [
        (&[][..], 11),
        (&["type=network"], 4),
        (&["type=volume"], 4),
        (&["type=network", "type=volume"], 8),
        (&["type=daemon"], 0),
        // The kind of what has the name is not looked at, unless it is asked for.
        (&["network=data"], 9),
        (&["network=data", "type=network"], 2),
        (&["network=ID"], 2),
        (&["network=other"], 2),
        (&["network=nosuch"], 0),
        (&["network=other", "network=database"], 4),
        (&["network=other", "volume=data"], 0),
        // The beginning of a name is enough, and its end is not.
        (&["volume=datab"], 2),
        (&["volume=base"], 0),
        (&["volume=data", "type=volume", "event=destroy"], 2),
        (&["daemon=other"], 2),
        (&["daemon=nosuch"], 0),
        (&["scope=local"], 11),
        (&["scope=swarm"], 0),
        (&["scope=swarm", "scope=local", "type=volume"], 4),
        (&["scope=loc"], 0),
        (&["container=data", "type=container"], 2),
    ] {
        let [own, peer] = [told(&ours, filters, &ids[0]), told(&theirs, filters, &ids[1])];
        assert_eq!(own, peer, "{filters:?}: ours, and dockerd's");
        assert_eq!(own.len(), count, "{filters:?}: {own:#?}");
    }
}
