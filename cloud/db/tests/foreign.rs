//! What is of others: a public fleet can be seen by everybody, and nobody gets further into it than
//! that, nor puts a part of it into what is their own. On both engines.

mod support;

use minke_cloud_db::Db;
use serde_json::{Value, json};
use support::owner::{
    Owner, device, has_access, image, one, owner, patch, refused, release, status_of_patch,
    status_of_post,
};
use support::{Twins, object, post, read};

/// Ann with a public fleet, and Bob, who belongs nowhere near it.
async fn strangers(db: &Db) -> (Owner, Owner) {
    let (ann, bob) = (owner(db, "ann").await, owner(db, "bob").await);
    patch(db, &format!("application({})", ann.fleet), json!({"is_public": true})).await;
    (ann, bob)
}

async fn developer(db: &Db) -> Value {
    one(db, "application_membership_role(name='developer')").await["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_himself_a_member_of_a_public_fleet() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = strangers(db).await;
        let role = developer(db).await;
        let membership = |user: i64, fleet: i64| json!({"user": user, "is_member_of__application": fleet, "application_membership_role": role});
        let direct = "user_application_membership";
        let stolen = membership(bob.user, ann.fleet);
        assert_eq!(status_of_post(db, &bob.caller, direct, stolen).await, 401, "{engine}");
        let own = object(membership(bob.user, bob.fleet));
        let own = db.post(&bob.caller, direct, &own).await.expect("a membership of one's own").id;
        let path = format!("{direct}({own})");
        let theft = json!({"is_member_of__application": ann.fleet});
        assert_eq!(status_of_patch(db, &bob.caller, &path, theft).await, 401, "{engine}");
        let named = format!("{direct}(user={},is_member_of__application={})", bob.user, ann.fleet);
        let body = object(json!({"application_membership_role": role}));
        let put = db.put(&bob.caller, &read(&named), &body).await.expect_err("a stranger");
        assert_eq!(put.status(), 401, "{engine}");
        assert!(!has_access(db, &bob, ann.fleet).await, "{engine}");

        let given = membership(ann.user, ann.fleet);
        assert_eq!(status_of_post(db, &ann.caller, direct, given).await, 201, "{engine}");
        patch(db, &format!("application({})", ann.fleet), json!({"is_public": false})).await;
        let hidden = membership(bob.user, ann.fleet);
        assert_eq!(status_of_post(db, &bob.caller, direct, hidden).await, 400, "not even seen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_his_own_team_access_to_a_public_fleet() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = strangers(db).await;
        let role = developer(db).await;
        let team = object(json!({"name": "t", "belongs_to__organization": bob.organization}));
        let team = db.post(&bob.caller, "team", &team).await.expect("a team").id;
        let member = object(json!({"user": bob.user, "is_member_of__team": team}));
        db.post(&bob.caller, "team_membership", &member).await.expect("a member");
        let access = |fleet: i64| json!({"team": team, "grants_access_to__application": fleet, "application_membership_role": role});
        let by_team = "team_application_access";
        let status = status_of_post(db, &bob.caller, by_team, access(ann.fleet)).await;
        assert_eq!(status, 401, "{engine}");
        let own = object(access(bob.fleet));
        let own = db.post(&bob.caller, by_team, &own).await.expect("access to one's own").id;
        let theft = json!({"grants_access_to__application": ann.fleet});
        let path = format!("{by_team}({own})");
        assert_eq!(status_of_patch(db, &bob.caller, &path, theft).await, 401, "{engine}");
        assert!(!has_access(db, &bob, ann.fleet).await, "{engine}");
    }
}

/// A successful release of a new public application.
async fn system(db: &Db, organization: i64, name: &str, kind: &str, is_host: bool) -> i64 {
    let kind = one(db, &format!("device_type(slug='{kind}')?$select=id")).await["id"].clone();
    let app = json!({"app_name": name, "organization": organization, "is_for__device_type": kind,
        "is_host": is_host, "is_public": true});
    let app = post(db, "application", app).await.expect("an application").id;
    let release = json!({"belongs_to__application": app, "commit": "5ys", "composition": {},
        "status": "success", "source": "local"});
    post(db, "release", release).await.expect("a release").id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_managed_and_operated_by_what_is_made_for_it_only() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = strangers(db).await;
        let foreign = release(db, &ann, "c1", json!({})).await;
        let organization = json!({"name": "System", "handle": "balena_os"});
        let organization = post(db, "organization", organization).await.expect("one").id;
        let device = device(db, &bob).await;
        let path = format!("device({device})");
        let (managed, operated) =
            ("should_be_managed_by__release", "should_be_operated_by__release");

        let arm = system(db, organization, "aarch64-supervisor", "raspberrypi4-64", false).await;
        let amd = system(db, organization, "amd64-supervisor", "generic-amd64", false).await;
        let other = system(db, organization, "generic-amd64", "generic-amd64", true).await;
        let host = system(db, organization, "intel-nuc", "intel-nuc", true).await;
        for (link, wrong) in [(managed, [foreign, arm, host]), (operated, [foreign, other, amd])] {
            for wrong in wrong {
                let status = status_of_patch(db, &bob.caller, &path, json!({link: wrong})).await;
                assert_eq!(status, 400, "{engine} {link} {wrong}");
                let kind = one(db, "device_type(slug='intel-nuc')?$select=id").await["id"].clone();
                let new = json!({"belongs_to__application": bob.fleet,
                    "is_of__device_type": kind, link: wrong});
                let status = status_of_post(db, &bob.caller, "device", new).await;
                assert_eq!(status, 400, "{engine} {link} {wrong}");
            }
        }
        for (link, right) in [(managed, amd), (operated, host)] {
            let status = status_of_patch(db, &bob.caller, &path, json!({link: right})).await;
            assert_eq!(status, 200, "{engine} {link}");
            let status = status_of_patch(db, &bob.caller, &path, json!({link: null})).await;
            assert_eq!(status, 200, "{engine} {link}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_and_its_images_are_of_one_application() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = strangers(db).await;
        let theirs = release(db, &ann, "c1", json!({})).await;
        let their_image = image(db, &ann, theirs, "main").await;
        let mine = release(db, &bob, "c1", json!({})).await;
        let my_image = image(db, &bob, mine, "main").await;

        let both = json!({"is_part_of__release": mine, "image": their_image});
        let status = status_of_post(db, &bob.caller, "release_image", both).await;
        assert_eq!(status, 400, "{engine}");
        let place = format!("release_image?$select=id&$filter=is_part_of__release eq {mine}");
        let place = one(db, &place).await["id"].clone();
        let service = format!("service?$select=id&$filter=application eq {}", ann.fleet);
        let their_service = one(db, &service).await["id"].clone();
        let service = format!("service?$select=id&$filter=application eq {}", bob.fleet);
        let my_service = one(db, &service).await["id"].clone();
        for (path, body) in [
            (format!("release_image({place})"), json!({"image": their_image})),
            (format!("release_image({place})"), json!({"is_part_of__release": theirs})),
            (format!("image({my_image})"), json!({"is_a_build_of__service": their_service})),
            (format!("service({my_service})"), json!({"application": ann.fleet})),
            (format!("release({mine})"), json!({"belongs_to__application": ann.fleet})),
        ] {
            // The rule holds for the server itself too, so it is not only who Bob is.
            refused(db, &path, body.clone()).await;
            let status = status_of_patch(db, &bob.caller, &path, body.clone()).await;
            assert_eq!(status, 400, "{engine} {path} {body}");
        }
        for (path, body) in [
            (format!("release_image({place})"), json!({"image": my_image})),
            (format!("image({my_image})"), json!({"is_a_build_of__service": my_service})),
            (format!("service({my_service})"), json!({"application": bob.fleet})),
            (format!("release({mine})"), json!({"belongs_to__application": bob.fleet})),
        ] {
            let status = status_of_patch(db, &bob.caller, &path, body).await;
            assert_eq!(status, 200, "{engine} {path}: what it is already");
        }
        let kind = one(db, "device_type(slug='intel-nuc')?$select=id").await["id"].clone();
        let fleet = json!({"app_name": "second", "organization": bob.organization,
            "is_for__device_type": kind, "should_be_running__release": theirs});
        let status = status_of_post(db, &bob.caller, "application", fleet).await;
        assert_eq!(status, 400, "{engine}: a new fleet has no release of another");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_image_is_stored_is_said_by_the_server() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let release = release(db, &ann, "c1", json!({})).await;
        let image = image(db, &ann, release, "main").await;
        let path = format!("image({image})");
        let location = one(db, &path).await["is_stored_at__image_location"].clone();
        let service = one(db, &path).await["is_a_build_of__service"]["__id"].clone();
        let there = json!("v2/ffffffffffffffffffffffffffffffff");
        let moved = json!({"is_stored_at__image_location": there});
        assert_eq!(status_of_patch(db, &ann.caller, &path, moved).await, 400, "{engine}");
        let placed =
            json!({"is_a_build_of__service": service, "is_stored_at__image_location": there});
        assert_eq!(status_of_post(db, &ann.caller, "image", placed).await, 400, "{engine}");
        assert_eq!(one(db, &path).await["is_stored_at__image_location"], location, "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_takes_the_access_that_its_teams_gave() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = (owner(db, "ann").await, owner(db, "bob").await);
        let organization = object(json!({"name": "Helpers"}));
        let made = db.post(&ann.caller, "organization", &organization).await;
        let organization = made.expect("an organization").id;
        let team = object(json!({"name": "t", "belongs_to__organization": organization}));
        let team = db.post(&ann.caller, "team", &team).await.expect("a team").id;
        let access = object(json!({"team": team, "grants_access_to__application": ann.fleet,
            "application_membership_role": developer(db).await}));
        db.post(&ann.caller, "team_application_access", &access).await.expect("access");
        let member = json!({"user": bob.user, "is_member_of__team": team});
        post(db, "team_membership", member).await.expect("a member");
        assert!(has_access(db, &bob, ann.fleet).await, "{engine}");
        let path = read(&format!("organization({organization})"));
        assert_eq!(db.delete(&ann.caller, &path).await.expect("a removal"), 1, "{engine}");
        assert!(!has_access(db, &bob, ann.fleet).await, "{engine}");
        assert!(has_access(db, &ann, ann.fleet).await, "{engine}: what is given otherwise stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_wakes_the_devices_of_a_public_fleet() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let (ann, bob) = strangers(db).await;
        let device = device(db, &ann).await;
        let before = db.state_generation(device).await.expect("a generation");
        let mut moved = db.moved();
        let profile = json!({"application": bob.fleet, "on__application": ann.fleet,
            "activates__profile_name": "x"});
        let made = db.post(&bob.caller, "application_profile", &object(profile)).await;
        let path = format!("application_profile({})", made.expect("a profile").id);
        let other = json!({"activates__profile_name": "y"});
        assert_eq!(status_of_patch(db, &bob.caller, &path, other).await, 200, "{engine}");
        assert_eq!(db.delete(&bob.caller, &read(&path)).await.expect("a removal"), 1, "{engine}");
        assert_eq!(db.state_generation(device).await.expect("a generation"), before, "{engine}");
        assert!(moved.try_recv().is_err(), "{engine}: nobody is told");
    }
}
