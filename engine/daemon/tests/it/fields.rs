//! Every field of a create request, with what it does: a table that is checked against the wire types
//! (no field without a row), against a running engine (every row has the effect that it tells, or is
//! refused by name), and against the page in docs/ that shows it.

mod asked;
mod limits;
mod page;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use minke_engine_client::wire::{
    ContainerConfig, ContainerDetails, EndpointSettings, HostConfig, Mount,
};
use serde_json::{Map, Value, json};

use crate::support::{Site, ask};
use rows::{Row, Shown};

/// The whole table.
fn table() -> impl Iterator<Item = &'static Row> {
    asked::ROWS.iter().chain(limits::ROWS)
}

/// The fields of a wire type: the keys of a value in which every field says something.
fn keys(value: impl serde::Serialize) -> BTreeSet<String> {
    match serde_json::to_value(value).unwrap() {
        Value::Object(map) => map.keys().cloned().collect(),
        other => panic!("{other} is no object"),
    }
}

#[test]
fn every_field_has_a_row() {
    let of_types = [
        ("", keys(page::every_config_field())),
        ("HostConfig.", keys(page::every_host_field())),
        ("NetworkingConfig.EndpointsConfig.", keys(page::every_endpoint_field())),
        ("HostConfig.Mounts.", keys(page::every_mount_field())),
    ];
    let mut wanted = BTreeSet::new();
    for (prefix, names) in of_types {
        wanted.extend(names.into_iter().map(|name| format!("{prefix}{name}")));
    }
    let known: BTreeSet<String> = table().map(|row| row.field.to_owned()).collect();
    assert_eq!(known.len(), table().count(), "a field has two rows");
    assert_eq!(wanted.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(known.difference(&wanted).collect::<Vec<_>>(), Vec::<&String>::new());
    for row in table() {
        assert!(!row.does.is_empty(), "{} does nothing", row.field);
    }
}

#[test]
fn every_test_that_a_row_names_is_there() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let texts: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    for row in table() {
        if let Shown::Test(name) = row.shown {
            let text = format!("fn {name}(");
            assert!(texts.iter().any(|file| file.contains(&text)), "{}: {name}", row.field);
        }
    }
}

#[test]
fn the_page_shows_the_table() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/engine-create-fields.md");
    let text = page::render(table());
    if std::env::var_os("MINKE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "docs/engine-create-fields.md is stale: MINKE_WRITE_DOCS=1 writes it");
}

/// A create body with `own` laid over `base`; objects are merged.
fn merged(base: Value, own: &Value) -> Value {
    match (base, own) {
        (Value::Object(mut base), Value::Object(own)) => {
            for (key, value) in own {
                let before = base.remove(key).unwrap_or(Value::Null);
                base.insert(key.clone(), merged(before, value));
            }
            Value::Object(base)
        }
        (_, own) => own.clone(),
    }
}

fn parsed(text: &str) -> Value {
    match text {
        "" => Value::Object(Map::new()),
        text => serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}")),
    }
}

/// What a container of this body prints.
fn prints(site: &Site, body: &Value) -> String {
    let created = ask(site, "POST", "/containers/create", Some(body));
    assert_eq!(created.status, 201, "{body}: {}", created.text);
    let id = created.json()["Id"].as_str().unwrap().to_owned();
    let started = ask(site, "POST", &format!("/containers/{id}/start"), None);
    assert_eq!(started.status, 204, "{body}: {}", started.text);
    ask(site, "POST", &format!("/containers/{id}/wait"), None);
    let logs = ask(site, "GET", &format!("/containers/{id}/logs?stdout=1"), None);
    let tty = body["Tty"] == true;
    let said = if tty { logs.text } else { logs.frames() };
    ask(site, "DELETE", &format!("/containers/{id}?force=1&v=1"), None);
    said.replace('\r', "").trim_end().to_owned()
}

#[test]
fn every_field_does_what_its_row_says() {
    let site = Site::new();
    site.docker(&["run", "-d", "--name", "other", "-e", "A=1", "busybox", "sleep", "1000"]).ok();
    site.docker(&["network", "create", "net"]).ok();
    let without = without_fields(&site);
    let wrong: Vec<String> = table().filter_map(|row| check(&site, row, &without).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    rows::sweep();
}

/// What the probes print in a container that asks for nothing: all in one, which saves half the time.
fn without_fields(site: &Site) -> BTreeMap<&'static str, String> {
    const MARK: &str = "--- next";
    let blank = |row: &&Row| matches!(row.shown, Shown::Prints { base: "", everywhere: false, .. });
    let rows: Vec<&Row> = table().filter(blank).collect();
    let mut script = String::new();
    for row in &rows {
        if let Shown::Prints { probe, .. } = row.shown {
            script.push_str(&format!("({}); echo '{MARK}'\n", rows::with_device(probe)));
        }
    }
    let body = json!({ "Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {} });
    let said = prints(site, &body);
    let parts: Vec<&str> = said.split(MARK).map(str::trim).collect();
    assert!(parts.len() >= rows.len(), "{said}");
    rows.iter().zip(parts).map(|(row, part)| (row.field, part.to_owned())).collect()
}

fn check(site: &Site, row: &Row, without: &BTreeMap<&str, String>) -> Result<(), String> {
    let blank = json!({ "Image": "busybox", "HostConfig": {} });
    match row.shown {
        Shown::Test(_) => Ok(()),
        Shown::Refused(own) => {
            let name = row.field.rsplit('.').next().unwrap_or(row.field);
            let answer =
                ask(site, "POST", "/containers/create", Some(&merged(blank, &parsed(own))));
            match answer.status == 400 && answer.text.contains(name) {
                true => Ok(()),
                false => Err(format!("{}: {} {}", row.field, answer.status, answer.text)),
            }
        }
        Shown::Inspect { own, at, says } => {
            let body = merged(blank, &parsed(own));
            let created = ask(site, "POST", "/containers/create", Some(&body));
            if created.status != 201 {
                return Err(format!("{}: {} {}", row.field, created.status, created.text));
            }
            let id = created.json()["Id"].as_str().unwrap_or_default().to_owned();
            let shown = ask(site, "GET", &format!("/containers/{id}/json"), None).json();
            ask(site, "DELETE", &format!("/containers/{id}?force=1&v=1"), None);
            let found = shown.pointer(at).cloned().unwrap_or(Value::Null);
            match found == parsed(says) {
                true => Ok(()),
                false => Err(format!("{}: inspect shows {found}, not {says}", row.field)),
            }
        }
        Shown::Prints { base, own, probe, says, everywhere } => {
            let base = merged(blank, &parsed(base));
            let base = merged(base, &json!({ "Cmd": ["sh", "-c", rows::with_device(probe)] }));
            let own = rows::with_device(own);
            let with = prints(site, &merged(base.clone(), &parsed(&own)));
            let says = rows::fill_in(says);
            if with != says {
                return Err(format!("{}: it prints {with:?}, not {says:?}", row.field));
            }
            let alone = || match without.get(row.field) {
                Some(known) => known.clone(),
                None => prints(site, &base),
            };
            if !everywhere && alone() == says {
                return Err(format!("{}: it prints {says:?} without the field too", row.field));
            }
            Ok(())
        }
    }
}

#[test]
fn what_is_no_field_is_ignored_and_what_is_of_a_wrong_kind_is_refused() {
    let site = Site::new();
    let create = |body: Value| ask(&site, "POST", "/containers/create", Some(&body));
    let odd = json!({ "Image": "busybox", "NoSuch": 1, "HostConfig": { "NoSuch": { "a": [] } } });
    assert_eq!(create(odd).status, 201);
    for wrong in [
        json!({ "Image": 7 }),
        json!({ "Image": "busybox", "Env": "A=1" }),
        json!({ "Image": "busybox", "HostConfig": { "Memory": "64m" } }),
        json!({ "Image": "busybox", "HostConfig": { "Binds": { "a": "b" } } }),
        json!([]),
    ] {
        let answer = create(wrong.clone());
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text);
        assert!(answer.text.contains("invalid JSON"), "{wrong}: {}", answer.text);
    }
}

/// The types are those that inspect answers with.
#[test]
fn inspect_answers_with_every_field() {
    let details = ContainerDetails {
        config: page::every_config_field(),
        host_config: page::every_host_field(),
        ..ContainerDetails::default()
    };
    let text = serde_json::to_string(&details).unwrap();
    let again: ContainerDetails = serde_json::from_str(&text).unwrap();
    let (config, host): (ContainerConfig, HostConfig) = (again.config, again.host_config);
    assert_eq!((config, host), (page::every_config_field(), page::every_host_field()));
    let endpoint: EndpointSettings =
        serde_json::from_value(json!(page::every_endpoint_field())).unwrap();
    assert_eq!(endpoint, page::every_endpoint_field());
    let mount: Mount = serde_json::from_value(json!(page::every_mount_field())).unwrap();
    assert_eq!(mount, page::every_mount_field());
}
