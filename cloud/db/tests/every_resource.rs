//! What holds for every resource of the model, generated from it: a row written at full width reads
//! back the same on both engines, by all of its names; and nobody else sees it.

mod support;

use std::collections::HashMap;

use minke_cloud_db::model::{Access, Field, Kind, Link, Resource};
use minke_cloud_db::{Caller, Db, Model};
use minke_cloud_fleet::{Role, Verb};
use serde_json::{Map, Value, json};
use support::{Twins, post, read};

/// A value for every kind of field: with quotes, letters beyond ASCII, and numbers that a careless
/// conversion would round.
fn value(resource: &str, field: &Field) -> Value {
    if let Some(first) = field.values.first() {
        return json!(first);
    }
    match field.kind {
        Kind::Integer => json!(9_007_199_254_740_991_i64),
        Kind::BigInteger => json!("9223372036854775807"),
        Kind::Real => json!(0.1),
        // What is public is seen by others: that is for the tests of permissions.
        Kind::Boolean if field.name == "is_public" => json!(false),
        Kind::Boolean => json!(field.default != Some(json!(true))),
        Kind::DateTime => json!("2026-02-28T23:59:59.007Z"),
        Kind::Json => json!({"a": ["é'\"\\", null, 1.5, {"b": true}], "z": {}}),
        Kind::WebResource => {
            json!({"filename": "ü.bin", "href": "v2/x", "content_type": "a/b", "size": 5})
        }
        Kind::Version => Value::Null,
        Kind::Text => match (resource, field.name.as_str()) {
            ("application", "uuid") | ("device", "uuid") => json!("0123456789abcdef".repeat(2)),
            ("application", "app_name") => json!("full-width"),
            ("organization", "handle") => json!("full_width"),
            (name, "name") if name.ends_with("_config_variable") => json!("BALENA_X:y"),
            (name, "name") if name.ends_with("_variable") => json!("FULL_WIDTH"),
            _ => json!(
                format!("{}: 'ßé漢🦀' \"\\/\u{1}%_", field.name)
                    .chars()
                    .take(field.max)
                    .collect::<String>()
            ),
        },
    }
}

/// Makes one row of each resource, and first of those that it points to.
struct Maker<'d> {
    db: &'d Db,
    made: HashMap<String, i64>,
}

fn links(resource: &Resource) -> impl Iterator<Item = &Link> {
    resource.links.iter().filter(|link| link.computed.is_none())
}

impl Maker<'_> {
    async fn make(&mut self, resource: &'static Resource) -> (i64, Map<String, Value>) {
        let mut body = Map::new();
        for link in links(resource) {
            let target = Model::get().at(link.to);
            // A release that is the target or the pin must be of the row's own fleet, one that manages
            // or operates a device is of the system; the actor of a row is its own.
            let own = [
                "should_be_running__release",
                "is_pinned_on__release",
                "should_be_managed_by__release",
                "should_be_operated_by__release",
                "actor",
            ];
            if own.contains(&link.name.as_str()) || (link.nullable && target.name == resource.name)
            {
                continue;
            }
            let id = match self.made.get(&target.name) {
                Some(id) => *id,
                None => Box::pin(self.make(target)).await.0,
            };
            body.insert(link.name.clone(), json!(id));
        }
        for field in resource.fields.iter().filter(|f| f.computed.is_none() && f.name != "id") {
            if field.access != Access::Secret || !field.nullable {
                body.insert(field.name.clone(), value(&resource.name, field));
            }
        }
        let made = post(self.db, &resource.name, Value::Object(body.clone())).await;
        let made = made.unwrap_or_else(|error| {
            panic!("{}: {} {body:?}", resource.name, support::chain(&error))
        });
        self.made.insert(resource.name.clone(), made.id);
        (made.id, body)
    }
}

/// What a read must show of what was written.
fn shown(resource: &Resource, name: &str, written: &Value) -> Option<Value> {
    match resource.field(name) {
        Some(field) if field.access == Access::Secret => None,
        Some(_) => Some(written.clone()),
        None => Some(json!({ "__id": written })),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_width_row_reads_back_the_same_and_only_to_those_who_may() {
    let twins = Twins::start().await;
    let resources: Vec<&'static Resource> =
        Model::get().resources().iter().filter(|r| !r.is_readonly).collect();
    let mut makers: Vec<Maker<'_>> =
        twins.both().map(|(_, db)| Maker { db, made: HashMap::new() }).into();
    let mut all = Vec::new();
    for resource in &resources {
        let mut rows = Vec::new();
        for maker in &mut makers {
            let known = maker.made.get(&resource.name).copied();
            rows.push(match known {
                Some(id) => (id, None),
                None => {
                    let (id, body) = maker.make(resource).await;
                    (id, Some(body))
                }
            });
        }
        assert_eq!(rows[0], rows[1], "{}", resource.name);
        all.push((*resource, rows.remove(0).0));
    }
    for (resource, id) in all {
        check_row(&twins, resource, id).await;
        check_foreign(&twins, resource, id).await;
    }
}

async fn check_row(twins: &Twins, resource: &'static Resource, id: i64) {
    let root = Caller::root();
    for name in std::iter::once(&resource.name).chain(&resource.synonyms) {
        let rows = twins.get(&root, &format!("{name}({id})")).await.expect("a read");
        let row = &rows[0];
        assert_eq!(row["id"], json!(id), "{name}");
        for field in resource.fields.iter().filter(|f| f.computed.is_none() && f.name != "id") {
            let written = value(&resource.name, field);
            let wanted = shown(resource, &field.name, &written);
            // What a rule sets itself is shown by the tests of the rules.
            let ruled = [("device", "last_connectivity_event"), ("release", "update_timestamp")];
            if !ruled.contains(&(resource.name.as_str(), field.name.as_str())) {
                assert_eq!(row.get(&field.name).cloned(), wanted, "{name}.{}", field.name);
            }
        }
    }
    for link in links(resource) {
        for name in std::iter::once(&link.name).chain(&link.synonyms) {
            let plain = format!("{}({id})?$select={name}", resource.name);
            let wide = format!("{}({id})?$select=id&$expand={name}($select=id)", resource.name);
            let plain = twins.get(&root, &plain).await.expect("a link");
            let wide = twins.get(&root, &wide).await.expect("an expanded link");
            let target = plain[0][name]["__id"].clone();
            let expanded = wide[0][name].get(0).map_or(Value::Null, |row| row["id"].clone());
            assert_eq!(target, expanded, "{}.{name}", resource.name);
        }
    }
    for reverse in &resource.reverse {
        let mut counts = Vec::new();
        for name in &reverse.names {
            let wide = format!("{}({id})?$select=id&$expand={name}($select=id)", resource.name);
            let count = format!("{}({id})?$select=id&$expand={name}/$count", resource.name);
            let wide = twins.get(&root, &wide).await.expect("an expanded navigation");
            let count = twins.get(&root, &count).await.expect("a count");
            assert_eq!(
                wide[0][name].as_array().map(Vec::len),
                count[0][name].as_u64().map(|n| n as usize)
            );
            counts.push(count[0][name].clone());
        }
        counts.dedup();
        assert_eq!(counts.len(), 1, "{}: {:?}", resource.name, reverse.names);
    }
}

/// A person with an account of their own, who belongs nowhere.
async fn check_foreign(twins: &Twins, resource: &'static Resource, id: i64) {
    let foreigners = [
        Caller::with_role(Some(999_999), Role::User),
        Caller::with_role(Some(999_999), Role::Device),
        Caller::with_role(Some(999_999), Role::Provisioning),
        Caller::anonymous(),
    ];
    let root = Caller::root();
    for caller in foreigners {
        let open = caller.permissions.filters(&resource.name, Verb::Read);
        if open.iter().any(|filter| filter == "true") {
            continue;
        }
        let name = &resource.name;
        let rows = twins.get(&caller, &format!("{name}?$select=id")).await;
        assert_eq!(rows, Ok(json!([])), "{name}");
        assert_eq!(twins.get(&caller, &format!("{name}/$count")).await, Ok(json!(0)), "{name}");
        for link in links(resource) {
            let target = Model::get().at(link.to);
            for back in target.reverse.iter().filter(|r| r.from == index(resource)).take(1) {
                let seen = format!(
                    "{}?$select=id&$filter={}/any(x:x/id eq {id})",
                    target.name, back.names[0]
                );
                let seen = twins.get(&caller, &seen).await.expect("a filter");
                assert_eq!(seen, json!([]), "{name} through {}", target.name);
            }
        }
        for (engine, db) in twins.both() {
            refuses(engine, db, &caller, resource, id).await;
        }
        let left = twins.get(&root, &format!("{name}({id})?$select=id")).await;
        assert_eq!(left, Ok(json!([{ "id": id }])), "{name} is still there");
    }
}

async fn refuses(engine: &str, db: &Db, caller: &Caller, resource: &Resource, id: i64) {
    let request = read(&format!("{}({id})", resource.name));
    let field = resource
        .fields
        .iter()
        .find(|f| !f.readonly && f.computed.is_none() && f.access == Access::Normal);
    if let Some(field) = field {
        let body = Map::from_iter([(field.name.clone(), value(&resource.name, field))]);
        let done = db.patch(caller, &request, &body).await;
        assert!(
            matches!(done, Ok(0)) || done.is_err_and(|e| e.status() == 401),
            "{engine} {}",
            resource.name
        );
    }
    let done = db.delete(caller, &request).await;
    assert!(
        matches!(done, Ok(0)) || done.is_err_and(|e| e.status() == 401),
        "{engine} {}",
        resource.name
    );
    let mut body = Map::new();
    for link in links(resource).filter(|link| !link.readonly && !link.nullable) {
        body.insert(link.name.clone(), json!(1));
    }
    for field in resource.fields.iter().filter(|f| !f.readonly && f.computed.is_none()) {
        if field.access == Access::Normal {
            body.insert(field.name.clone(), value(&resource.name, field));
        }
    }
    let done = db.post(caller, &resource.name, &body).await;
    let status = done.map_err(|error| error.status()).expect_err(&resource.name);
    assert!(matches!(status, 400 | 401 | 409), "{engine} {}: {status}", resource.name);
}

fn index(resource: &Resource) -> usize {
    let mut all = Model::get().resources().iter();
    all.position(|other| other.name == resource.name).expect("a resource of the model")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_are_what_the_model_says() {
    let twins = Twins::start().await;
    for resource in Model::get().resources() {
        let rows = twins.get(&Caller::root(), &format!("{}?$top=1", resource.name)).await;
        assert!(rows.is_ok(), "{}: {rows:?}", resource.name);
    }
}

#[test]
fn permissions_speak_of_resources_by_their_own_names() {
    for role in [Role::User, Role::Device, Role::Provisioning, Role::Public] {
        for (name, ..) in minke_cloud_fleet::Permissions::for_role(role).rules() {
            let resource = Model::get().resource(name).map(|resource| resource.name.as_str());
            assert_eq!(resource, Some(name), "{role:?}");
        }
    }
}
