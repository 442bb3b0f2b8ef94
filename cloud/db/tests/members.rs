//! What the members of a fleet may do, by their roles, and who can give a fleet away. On both engines.

mod support;

use minke_cloud_db::{Db, Tx};
use serde_json::{Value, json};
use support::owner::{
    Owner, device, get, has_access, one, owner, patch, release, status_of_patch, status_of_post,
};
use support::{Twins, object, post, read};

async fn role(db: &Db, name: &str) -> Value {
    one(db, &format!("application_membership_role(name='{name}')")).await["id"].clone()
}

/// Makes Bob a member of Ann's fleet; gives the path of the membership.
async fn member(db: &Db, ann: &Owner, bob: &Owner, name: &str) -> String {
    let row = json!({"user": bob.user, "is_member_of__application": ann.fleet,
        "application_membership_role": role(db, name).await});
    let made = post(db, "user_application_membership", row).await.expect("a membership");
    format!("user_application_membership({})", made.id)
}

/// Makes Bob a member of a team of Ann's which has access to her fleet in this role.
async fn team_member(db: &Db, ann: &Owner, bob: &Owner, name: &str) {
    let team = json!({"name": name, "belongs_to__organization": ann.organization});
    let team = post(db, "team", team).await.expect("a team").id;
    let row = json!({"user": bob.user, "is_member_of__team": team});
    post(db, "team_membership", row).await.expect("a member");
    let row = json!({"team": team, "grants_access_to__application": ann.fleet,
        "application_membership_role": role(db, name).await});
    post(db, "team_application_access", row).await.expect("access");
}

/// What Bob gets for each kind of write to Ann's fleet.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    fleet: u16,
    variable: u16,
    release: u16,
    device: u16,
    device_variable: u16,
    team: u16,
}

const NOTHING: Answers = Answers {
    fleet: 404,
    variable: 401,
    release: 401,
    device: 404,
    device_variable: 401,
    team: 401,
};
const DEVICES: Answers = Answers { device: 200, device_variable: 201, ..NOTHING };
const EVERYTHING: Answers = Answers {
    fleet: 200,
    variable: 201,
    release: 201,
    device: 200,
    device_variable: 201,
    team: 201,
};
/// What each role may do.
const ROLES: [(&str, Answers); 3] =
    [("observer", NOTHING), ("operator", DEVICES), ("developer", EVERYTHING)];

async fn tried(db: &Db, ann: &Owner, bob: &Owner, device: i64) -> Answers {
    let patch =
        async |path: String, body: Value| status_of_patch(db, &bob.caller, &path, body).await;
    let post =
        async |resource: &str, body: Value| status_of_post(db, &bob.caller, resource, body).await;
    let team = object(json!({"name": "own", "belongs_to__organization": bob.organization}));
    let team = db.post(&bob.caller, "team", &team).await.expect("a team of his own").id;
    let fleet = ann.fleet;
    Answers {
        fleet: patch(format!("application({fleet})"), json!({"app_name": "renamed"})).await,
        variable: post(
            "application_environment_variable",
            json!({"application": fleet, "name": "A", "value": "1"}),
        )
        .await,
        release: post(
            "release",
            json!({"belongs_to__application": fleet, "commit": "b0b", "composition": {},
                "status": "success", "source": "local", "start_timestamp": support::NOW}),
        )
        .await,
        device: patch(format!("device({device})"), json!({"device_name": "renamed"})).await,
        device_variable: post(
            "device_environment_variable",
            json!({"device": device, "name": "A", "value": "1"}),
        )
        .await,
        team: post(
            "team_application_access",
            json!({"team": team, "grants_access_to__application": fleet,
                "application_membership_role": role(db, "developer").await}),
        )
        .await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_fleet_does_what_the_role_says_and_no_more() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        for (name, expected) in ROLES {
            let ann = owner(db, &format!("ann_{name}")).await;
            let bob = owner(db, &format!("bob_{name}")).await;
            let device = device(db, &ann).await;
            let membership = member(db, &ann, &bob, name).await;
            let seen = db.get(&bob.caller, &read(&format!("device({device})"))).await;
            assert_eq!(seen.expect("a read")[0]["id"], device, "{engine} {name}");
            assert_eq!(tried(db, &ann, &bob, device).await, expected, "{engine} {name}");
            let better = json!({"application_membership_role": role(db, "developer").await});
            let status = status_of_patch(db, &bob.caller, &membership, better).await;
            let may = if name == "developer" { 200 } else { 404 };
            assert_eq!(status, may, "{engine} {name}: nobody makes himself more");
            let left = db.delete(&bob.caller, &read(&membership)).await.expect("a removal");
            assert_eq!(left, 1, "{engine} {name}: whoever may look may leave");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_gives_a_fleet_in_the_role_that_it_has() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        for (name, expected) in ROLES {
            let ann = owner(db, &format!("ann_{name}")).await;
            let bob = owner(db, &format!("bob_{name}")).await;
            let device = device(db, &ann).await;
            team_member(db, &ann, &bob, name).await;
            assert_eq!(tried(db, &ann, &bob, device).await, expected, "{engine} {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_administers_a_team_does_not_raise_its_role_in_the_fleet_of_another() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = (owner(db, "ann").await, owner(db, "bob").await);
        let device = device(db, &ann).await;
        let team = json!({"name": "guests", "belongs_to__organization": bob.organization});
        let team = post(db, "team", team).await.expect("a team").id;
        let row = json!({"user": bob.user, "is_member_of__team": team});
        post(db, "team_membership", row).await.expect("a member");
        let row = json!({"team": team, "grants_access_to__application": ann.fleet,
            "application_membership_role": role(db, "observer").await});
        let access = post(db, "team_application_access", row).await.expect("access").id;
        let access = format!("team_application_access({access})");
        let better = json!({"application_membership_role": role(db, "developer").await});
        assert_eq!(status_of_patch(db, &bob.caller, &access, better).await, 404, "{engine}");
        assert_eq!(tried(db, &ann, &bob, device).await, NOTHING, "{engine}");
        assert!(has_access(db, &bob, ann.fleet).await, "{engine}");
        let gone = db.delete(&bob.caller, &read(&access)).await.expect("a removal");
        assert_eq!(gone, 1, "{engine}: what a team has can be given up");
        assert!(!has_access(db, &bob, ann.fleet).await, "{engine}");

        team_member(db, &ann, &bob, "observer").await;
        let access = one(db, "team_application_access?$select=id").await["id"].clone();
        let access = format!("team_application_access({access})");
        let operator = json!({"application_membership_role": role(db, "operator").await});
        let (device, name) = (format!("device({device})"), json!({"device_name": "renamed"}));
        assert_eq!(status_of_patch(db, &ann.caller, &access, operator).await, 200, "{engine}");
        assert_eq!(status_of_patch(db, &bob.caller, &device, name).await, 200, "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_removes_nothing() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = (owner(db, "ann").await, owner(db, "bob").await);
        let device = device(db, &ann).await;
        let release = release(db, &ann, "c1", json!({})).await;
        let of_ann = member(db, &ann, &ann, "developer").await;
        member(db, &ann, &bob, "observer").await;
        for path in [
            format!("device({device})"),
            format!("release({release})"),
            of_ann,
            format!("application({})", ann.fleet),
        ] {
            let gone = db.delete(&bob.caller, &read(&path)).await.expect("nothing to remove");
            assert_eq!(gone, 0, "{engine} {path}");
            let gone = db.delete(&ann.caller, &read(&path)).await.expect("a removal");
            assert_eq!(gone, 1, "{engine} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_given_to_another_organization_by_who_administers_its_own() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = (owner(db, "ann").await, owner(db, "bob").await);
        let path = format!("application({})", ann.fleet);
        let theft = json!({"organization": bob.organization});
        member(db, &ann, &bob, "developer").await;
        let status = status_of_patch(db, &bob.caller, &path, theft.clone()).await;
        assert_eq!(status, 401, "{engine}: a developer");
        let membership = |user: i64, organization: i64| json!({"user": user, "is_member_of__organization": organization});
        let colleague = membership(bob.user, ann.organization);
        post(db, "organization_membership", colleague).await.expect("a colleague");
        let status = status_of_patch(db, &bob.caller, &path, theft.clone()).await;
        assert_eq!(status, 401, "{engine}: a member of the organization");
        assert_eq!(one(db, &path).await["slug"], "ann/fleet", "{engine}");
        let same = json!({"organization": ann.organization});
        assert_eq!(status_of_patch(db, &bob.caller, &path, same).await, 200, "what it is already");

        let guest = membership(ann.user, bob.organization);
        post(db, "organization_membership", guest).await.expect("a guest");
        patch(db, &format!("application({})", bob.fleet), json!({"app_name": "other"})).await;
        assert_eq!(status_of_patch(db, &ann.caller, &path, theft).await, 200, "{engine}");
        assert_eq!(one(db, &path).await["slug"], "bob/fleet", "{engine}");
    }
}

/// Waits until `writer` is done or waits for another transaction.
async fn settled<T>(pool: &sqlx::PgPool, writer: &tokio::task::JoinHandle<T>) {
    let waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
    while !writer.is_finished() {
        let count: i64 = sqlx::query_scalar(waiting).fetch_one(pool).await.expect("the locks");
        if count > 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn ended(db: &Db, ann: &Owner, path: &str) -> Tx {
    let mut tx = db.begin().await.expect("a transaction");
    assert_eq!(tx.delete(&ann.caller, &read(path)).await.expect("a removal"), 1);
    tx
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_a_fleet_is_made_has_no_access_to_it() {
    let twins = Twins::start().await;
    let db = &twins.postgres;
    let pool = sqlx::PgPool::connect(&twins.postgres_url()).await.expect("a connection");
    let (ann, bob) = (owner(db, "ann").await, owner(db, "bob").await);
    let row = json!({"user": bob.user, "is_member_of__organization": ann.organization});
    let membership = post(db, "organization_membership", row).await.expect("a colleague").id;
    assert!(has_access(db, &bob, ann.fleet).await);
    let leaving = ended(db, &ann, &format!("organization_membership({membership})")).await;

    let kind = one(db, "device_type(slug='generic-amd64')?$select=id").await["id"].clone();
    let fleet = object(json!({"app_name": "second", "organization": ann.organization,
        "is_for__device_type": kind}));
    let (maker, caller) = (db.clone(), ann.caller.clone());
    let making =
        tokio::spawn(async move { maker.post(&caller, "application", &fleet).await.map(|m| m.id) });
    settled(&pool, &making).await;
    leaving.commit().await.expect("a commit");
    let second = making.await.expect("no panic").expect("a fleet");
    for fleet in [ann.fleet, second] {
        assert!(!has_access(db, &bob, fleet).await, "{fleet}");
        assert!(has_access(db, &ann, fleet).await, "{fleet}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_a_team_while_it_loses_a_fleet_has_no_access_to_it() {
    let twins = Twins::start().await;
    let db = &twins.postgres;
    let pool = sqlx::PgPool::connect(&twins.postgres_url()).await.expect("a connection");
    let (ann, bob) = (owner(db, "ann").await, owner(db, "bob").await);
    team_member(db, &ann, &ann, "developer").await;
    let access = get(db, "team_application_access?$select=id,team").await[0].clone();
    let path = format!("team_application_access({})", access["id"]);
    let losing = ended(db, &ann, &path).await;

    let row = object(json!({"user": bob.user, "is_member_of__team": access["team"]["__id"]}));
    let joiner = db.clone();
    let joining = tokio::spawn(async move {
        joiner.post(&minke_cloud_db::Caller::root(), "team_membership", &row).await.map(drop)
    });
    settled(&pool, &joining).await;
    losing.commit().await.expect("a commit");
    joining.await.expect("no panic").expect("a member");
    assert!(!has_access(db, &bob, ann.fleet).await);
}
