//! A search, passed on to a registry.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::corners::query;
use crate::registry::serve_routes;
use crate::support::{Site, ask};

/// What the registry has: name, stars, and whether it is official.
const ROWS: [(&str, i64, bool); 4] =
    [("box", 90, true), ("team/box", 40, false), ("other/box", 5, false), ("apple", 7, false)];

/// All that is about the word, however much was asked for: the description says what that was.
async fn answer(Query(asked): Query<BTreeMap<String, String>>) -> Json<Value> {
    let found = ROWS.iter().filter(|(name, ..)| name.contains(&asked["q"]));
    let rows: Vec<Value> = found
        .map(|(name, stars, official)| {
            json!({ "name": name, "description": format!("{} of {}", asked["n"], asked["q"]),
                "star_count": stars, "is_official": official, "is_automated": false })
        })
        .collect();
    Json(json!({ "num_results": rows.len(), "query": asked["q"], "results": rows }))
}

#[test]
fn a_search_says_what_the_registry_found_within_filters_and_limit() {
    let site = Site::empty(&[]);
    let registry = serve_routes(Router::new().route("/v1/search", get(answer)));
    let search = |more: &str| {
        let answer = ask(&site, "GET", &format!("/images/search?term={registry}/box{more}"), None);
        assert_eq!(answer.status, 200, "{more}: {}", answer.text);
        answer.json()
    };
    let names = |more: &str| -> Vec<String> {
        let rows = search(more);
        let name = |row: &Value| row["name"].as_str().unwrap().to_owned();
        rows.as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(
        search("")[0],
        json!({ "name": "box", "description": "25 of box", "star_count": 90, "is_official": true,
            "is_automated": false })
    );
    assert_eq!(names(""), ["box", "team/box", "other/box"]);
    assert_eq!(search("&limit=2")[0]["description"], "2 of box");
    assert_eq!(names("&limit=2"), ["box", "team/box"], "the registry gave more");
    let filtered = |filters: Value| names(&format!("&filters={}", query(&filters)));
    assert_eq!(filtered(json!({ "is-official": ["true"] })), ["box"]);
    assert_eq!(filtered(json!({ "is-official": ["false"] })), ["team/box", "other/box"]);
    assert_eq!(filtered(json!({ "stars": ["40"] })), ["box", "team/box"]);
    assert_eq!(filtered(json!({ "is-automated": ["true"] })), Vec::<String>::new());
    let refused = ask(&site, "GET", &format!("/images/search?term={registry}/box&limit=101"), None);
    assert!(refused.status == 400 && refused.text.contains("[1, 100]"), "{}", refused.text);
    let words = ["search", "--format", "{{.Name}} {{.StarCount}}"];
    let shown = site.docker(&[&words[..], &[&format!("{registry}/box")]].concat()).ok();
    assert_eq!(shown, "box 90\nteam/box 40\nother/box 5\n");
}
