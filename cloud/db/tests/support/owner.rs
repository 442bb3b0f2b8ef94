//! People with fleets of their own, and what they make.

use minke_cloud_db::{Caller, Db, NewAccount};
use minke_cloud_fleet::Role;
use serde_json::{Value, json};

use super::{NOW, chain, object, post, read};

pub async fn get(db: &Db, request: &str) -> Value {
    db.get(&Caller::root(), &read(request)).await.unwrap_or_else(|e| panic!("{request}: {e}"))
}

pub async fn one(db: &Db, request: &str) -> Value {
    get(db, request).await[0].clone()
}

pub async fn patch(db: &Db, request: &str, body: Value) -> u64 {
    let done = db.patch(&Caller::root(), &read(request), &object(body)).await;
    done.unwrap_or_else(|error| panic!("{request}: {}", chain(&error)))
}

pub async fn refused(db: &Db, request: &str, body: Value) -> String {
    let done = db.patch(&Caller::root(), &read(request), &object(body)).await;
    let error = done.expect_err(request);
    assert_eq!(error.status(), 400, "{error}");
    error.to_string()
}

/// The status of making a row: 201 if it was made.
pub async fn status_of_post(db: &Db, caller: &Caller, resource: &str, body: Value) -> u16 {
    let done = db.post(caller, resource, &object(body)).await;
    done.map_or_else(|error| error.status(), |_| 201)
}

/// The status of a change: 200 if it was made, 404 if there was nothing that the caller may change.
pub async fn status_of_patch(db: &Db, caller: &Caller, request: &str, body: Value) -> u16 {
    match db.patch(caller, &read(request), &object(body)).await {
        Ok(0) => 404,
        Ok(_) => 200,
        Err(error) => error.status(),
    }
}

/// Whether somebody has direct access to a fleet.
pub async fn has_access(db: &Db, who: &Owner, fleet: i64) -> bool {
    let access = "user__has_direct_access_to__application/$count?$filter=";
    let mine = format!("user eq {} and has_direct_access_to__application eq {fleet}", who.user);
    get(db, &format!("{access}{mine}")).await == json!(1)
}

/// A person with an organization and a fleet.
pub struct Owner {
    pub caller: Caller,
    pub user: i64,
    pub organization: i64,
    pub fleet: i64,
}

pub async fn owner(db: &Db, name: &str) -> Owner {
    let mut tx = db.begin().await.expect("a transaction");
    let email = format!("{name}@example.com");
    let new = NewAccount {
        username: name,
        email: Some(&email),
        password: Some("hash"),
        jwt_secret: "secret",
    };
    let account = tx.create_user(&new).await.expect("an account");
    let organization = tx.create_organization(&account, name, name).await.expect("an organization");
    tx.commit().await.expect("a commit");
    let caller = Caller::with_role(Some(account.actor), Role::User);
    let kind = one(db, "device_type(slug='generic-amd64')?$select=id").await["id"].clone();
    let body =
        json!({"app_name": "fleet", "organization": organization, "is_for__device_type": kind});
    let fleet = db.post(&caller, "application", &object(body)).await.expect("a fleet").id;
    Owner { caller, user: account.id, organization, fleet }
}

pub async fn device(db: &Db, owner: &Owner) -> i64 {
    let kind = one(db, "device_type(slug='intel-nuc')?$select=id").await["id"].clone();
    let body = json!({"belongs_to__application": owner.fleet, "is_of__device_type": kind});
    db.post(&owner.caller, "device", &object(body)).await.expect("a device").id
}

pub async fn release(db: &Db, owner: &Owner, commit: &str, more: Value) -> i64 {
    let mut body = object(json!({
        "belongs_to__application": owner.fleet, "commit": commit, "composition": {},
        "status": "success", "source": "local", "start_timestamp": NOW,
    }));
    body.extend(object(more));
    let made = db.post(&owner.caller, "release", &body).await;
    made.unwrap_or_else(|error| panic!("{}", chain(&error))).id
}

/// An image of a new service, in a release.
pub async fn image(db: &Db, owner: &Owner, release: i64, service: &str) -> i64 {
    let body = json!({"application": owner.fleet, "service_name": service});
    let service = post(db, "service", body).await.expect("a service").id;
    let body = json!({"is_a_build_of__service": service, "status": "success"});
    let image = db.post(&owner.caller, "image", &object(body)).await.expect("an image").id;
    let body = json!({"image": image, "is_part_of__release": release});
    db.post(&owner.caller, "release_image", &object(body)).await.expect("an image of a release");
    image
}
