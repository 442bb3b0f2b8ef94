//! Every OData request that was captured from an official client, replayed on both engines.

mod support;

use minke_cloud_db::{Caller, Db};
use minke_cloud_fleet::Role;
use minke_common_odata::Request;
use serde_json::{Map, Value, json};
use support::{Twins, fill, read, said};

/// Method, path and body of each line of the corpus.
fn corpus() -> Vec<(&'static str, &'static str, Map<String, Value>)> {
    let lines = include_str!("captured.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.split('\t');
            let method = parts.next().expect("a method");
            let path = parts.next().expect("a path");
            let body = parts.next().filter(|body| !body.is_empty());
            let body = body.map_or_else(Map::new, |body| {
                serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {body}: {error}"))
            });
            (method, path, body)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_equal_and_one_statement_each() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        fill(db).await;
    }
    let mut rows = 0;
    let mut done = 0;
    for caller in [Caller::root(), Caller::with_role(Some(11), Role::User)] {
        for (method, path, _) in corpus() {
            if method != "GET" {
                continue;
            }
            let answer = twins.get(&caller, path).await;
            let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
            rows += answer.as_array().map_or(1, Vec::len);
            done += 1;
        }
    }
    assert!(done > 350, "{done} reads");
    // An answer without rows shows little: most requests of the corpus find some.
    assert!(rows > done / 2, "{rows} rows in {done} answers");
}

/// What an answer to a write says, without what is drawn by lot.
async fn write(
    db: &Db,
    caller: &Caller,
    method: &str,
    request: &Request,
    body: &Map<String, Value>,
) -> Value {
    let done = match method {
        "POST" => db.post(caller, &request.resource, body).await.map(|created| {
            let mut row = created.row;
            if let Some(row) = row.as_object_mut() {
                let drawn = ["id", "uuid", "actor", "device_name", "is_stored_at__image_location"];
                row.retain(|name, _| !drawn.contains(&name.as_str()));
            }
            row
        }),
        "PATCH" => db.patch(caller, request, body).await.map(|rows| json!(rows)),
        "DELETE" => db.delete(caller, request).await.map(|rows| json!(rows)),
        other => panic!("unexpected method {other}"),
    };
    match done {
        Ok(answer) => answer,
        Err(error) => json!({"status": error.status(), "error": said(error)}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_have_equal_outcomes() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        fill(db).await;
    }
    let caller = Caller::with_role(Some(11), Role::User);
    let mut outcomes = Vec::new();
    for wanted in ["POST", "PATCH", "DELETE"] {
        for (method, path, body) in corpus() {
            if method != wanted {
                continue;
            }
            let request = read(path);
            let one = write(&twins.sqlite, &caller, method, &request, &body).await;
            let other = write(&twins.postgres, &caller, method, &request, &body).await;
            assert_eq!(one, other, "{method} {path} {body:?}");
            let refused = one.get("error").map(|error| format!("{method} {path}: {error}"));
            outcomes.push(refused.ok_or(()));
        }
    }
    let refused: Vec<String> = outcomes.iter().filter_map(|o| o.clone().ok()).collect();
    assert_eq!(refused.join("\n"), include_str!("refused.txt").trim_end());
}
