//! People log in by name or by address, and nobody takes another's. On both engines.

mod support;

use serde_json::json;
use support::owner::{one, owner, status_of_patch};
use support::{Twins, post};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_the_address_or_the_name_that_another_logs_in_by() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = (owner(db, "ann").await, owner(db, "bob").await);
        let path = format!("user({})", ann.user);
        for taken in [
            json!({"username": "bob@example.com"}),
            json!({"username": "BOB@example.com"}),
            json!({"username": ""}),
            json!({"email": "bob"}),
            json!({"email": "Bob"}),
        ] {
            let status = status_of_patch(db, &ann.caller, &path, taken.clone()).await;
            assert_eq!(status, 400, "{engine} {taken}");
        }
        for taken in [json!({"username": "Bob"}), json!({"email": "BOB@example.com"})] {
            let status = status_of_patch(db, &ann.caller, &path, taken.clone()).await;
            assert_eq!(status, 409, "{engine} {taken}: in whatever letters");
        }
        for login in ["bob", "bob@example.com"] {
            let found = db.user_by_login(login).await.expect("a look-up").expect("an account");
            assert_eq!(found.id, bob.user, "{engine} {login}");
        }
        let new = json!({"username": "Anna", "email": "Anna@Example.com"});
        assert_eq!(status_of_patch(db, &ann.caller, &path, new).await, 200, "{engine}");
        let row = one(db, &path).await;
        assert_eq!((&row["username"], &row["email"]), (&json!("anna"), &json!("anna@example.com")));
        let none = json!({"email": null});
        assert_eq!(status_of_patch(db, &ann.caller, &path, none).await, 200, "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_long_ago_that_is_an_address_stands_for_nobody() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let old = json!({"username": "bob@example.com", "email": "ann@example.com"});
        let old = post(db, "user", old).await.expect("an account of long ago").id;
        let bob = owner(db, "bob").await;
        for (login, user) in [("bob@example.com", bob.user), ("ann@example.com", old)] {
            let found = db.user_by_login(login).await.expect("a look-up").expect("an account");
            assert_eq!(found.id, user, "{engine} {login}");
        }
    }
}
