//! What writes bring with them, on both engines.

mod support;

use minke_cloud_db::{Caller, Db, Error, Identity, NewApiKey};
use serde_json::{Value, json};
use support::owner::{Owner, device, get, image, one, owner, patch, refused, release};
use support::{NOW, Twins, object, post, read};

#[tokio::test(flavor = "multi_thread")]
async fn new_rows_get_what_the_server_gives() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let owner = owner(db, "ann").await;
        let fleet = one(db, &format!("application({})", owner.fleet)).await;
        assert_eq!(fleet["slug"], json!("ann/fleet"), "{engine}");
        assert_eq!(fleet["uuid"].as_str().map(str::len), Some(32));
        assert_eq!(fleet["is_of__class"], json!("fleet"));
        assert_eq!(fleet["should_track_latest_release"], json!(true));
        let kind = fleet["application_type"]["__id"].as_i64().expect("an application type");
        let kind = one(db, &format!("application_type({kind})")).await;
        assert_eq!(kind["supports_multicontainer"], json!(true));
        let actor = fleet["actor"]["__id"].as_i64().expect("an actor");
        let who = db.identity(actor).await.expect("an identity");
        assert_eq!(who, Some(Identity::Application { id: owner.fleet, slug: "ann/fleet".into() }));

        let device = device(db, &owner).await;
        let device = one(db, &format!("device({device})")).await;
        assert_eq!(device["uuid"].as_str().map(str::len), Some(32));
        assert!(device["device_name"].as_str().is_some_and(|name| name.contains('-')));
        assert_eq!(device["is_active"], json!(true));
        assert_eq!(device["overall_status"], json!("configuring"));

        let release = release(db, &owner, "c1", json!({"semver": "1.2.3-rc.1+b"})).await;
        let image = image(db, &owner, release, "main").await;
        let image = one(db, &format!("image({image})")).await;
        let location = image["is_stored_at__image_location"].as_str().expect("a location");
        assert!(location.len() == 35 && location.starts_with("v2/"), "{location}");
        let release = one(db, &format!("release({release})")).await;
        assert_eq!(release["raw_version"], json!("1.2.3-rc.1+b"));
        assert_eq!(release["is_created_by__user"], json!({"__id": owner.user}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_count_up_and_drafts_become_final_once() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let owner = owner(db, "ann").await;
        for (commit, version) in [("c0", "1.0.0"), ("c1", "1.0.0+rev1"), ("c2", "1.0.0+rev2")] {
            let id = release(db, &owner, commit, json!({"semver": "1.0.0"})).await;
            let made = one(db, &format!("release({id})?$select=raw_version,is_final")).await;
            assert_eq!(made, json!({"raw_version": version, "is_final": true}));
        }
        let draft = release(db, &owner, "c3", json!({"semver": "1.0.0", "is_final": false})).await;
        let path = format!("release({draft})");
        let before = one(db, &path).await;
        assert_eq!(before["raw_version"], json!(format!("1.0.0-{NOW}")));
        let named = json!({"semver": "1.2.3-rc.1+b", "variant": "dev", "is_final": false});
        let named = release(db, &owner, "c4", named).await;
        let named = one(db, &format!("release({named})")).await;
        assert_eq!(named["raw_version"], json!(format!("1.2.3-rc.1.{NOW}+b.dev")));
        assert_eq!(patch(db, &path, json!({"is_final": true})).await, 1);
        let after = one(db, &path).await;
        assert_eq!(after["raw_version"], json!("1.0.0+rev3"));
        assert_eq!(after["version"]["raw"], json!("1.0.0+rev3"));
        assert_eq!(patch(db, &path, json!({"is_final": true, "note": "again"})).await, 1);
        assert_eq!(one(db, &path).await["raw_version"], json!("1.0.0+rev3"));
        refused(db, &path, json!({"is_final": false})).await;
        refused(db, &path, json!({"semver": "not one"})).await;

        let twin = json!({"belongs_to__application": owner.fleet, "commit": "c1", "source": "local",
            "composition": {}, "status": "success"});
        let twin = db.post(&owner.caller, "release", &object(twin)).await;
        match twin {
            Err(Error::Conflict { key, .. }) => {
                assert_eq!(key, ["belongs_to__application", "commit"]);
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn target(db: &Db, owner: &Owner) -> Value {
    let fleet = one(db, &format!("application({})", owner.fleet)).await;
    fleet["should_be_running__release"]["__id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_follows_its_latest_good_release() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let owner = owner(db, "ann").await;
        let device = device(db, &owner).await;
        let first = release(db, &owner, "c1", json!({})).await;
        assert_eq!(target(db, &owner).await, json!(first));
        let later = json!({"start_timestamp": NOW + 1, "status": "running"});
        let second = release(db, &owner, "c2", later).await;
        image(db, &owner, second, "main").await;
        assert_eq!(target(db, &owner).await, json!(first), "not before it is a success");
        let path = format!("release({second})");
        patch(db, &path, json!({"status": "success"})).await;
        assert_eq!(target(db, &owner).await, json!(second));
        let shown = one(db, &format!("device({device})?$select=should_be_running__release")).await;
        assert_eq!(shown["should_be_running__release"], json!({"__id": second}));
        let installs = get(db, &format!("service_install/$count?$filter=device eq {device}")).await;
        assert_eq!(installs, json!(1), "services are installed when the target moves");

        patch(db, &path, json!({"is_invalidated": true})).await;
        assert_eq!(target(db, &owner).await, json!(first), "an invalidated release is left");
        patch(db, &path, json!({"is_invalidated": false})).await;
        assert_eq!(target(db, &owner).await, json!(second));

        let fleet = format!("application({})", owner.fleet);
        let pin =
            json!({"should_track_latest_release": false, "should_be_running__release": first});
        patch(db, &fleet, pin).await;
        release(db, &owner, "c3", json!({"start_timestamp": NOW + 2})).await;
        assert_eq!(target(db, &owner).await, json!(first), "a fleet that does not track stays");
        patch(db, &fleet, json!({"should_track_latest_release": true})).await;
        assert_ne!(target(db, &owner).await, json!(first));
        db.delete(&owner.caller, &read(&path)).await.expect("a removal");
        assert_ne!(target(db, &owner).await, Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_checked_and_a_move_clears_them() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let bob = owner(db, "bob").await;
        let device = device(db, &ann).await;
        let path = format!("device({device})");
        let good = release(db, &ann, "c1", json!({})).await;
        image(db, &ann, good, "main").await;
        let failed = release(db, &ann, "c2", json!({"status": "failed"})).await;
        let foreign = release(db, &bob, "c1", json!({})).await;
        refused(db, &path, json!({"is_pinned_on__release": failed})).await;
        refused(db, &path, json!({"is_pinned_on__release": foreign})).await;
        patch(db, &path, json!({"is_pinned_on__release": good})).await;
        let services = format!("service_install?$filter=device eq {device}");
        assert_eq!(get(db, &services).await.as_array().map(Vec::len), Some(1));
        // A write that names the fleet it is in moves nothing.
        patch(db, &path, json!({"belongs_to__application": ann.fleet})).await;
        assert_eq!(one(db, &path).await["is_pinned_on__release"], json!({"__id": good}));
        patch(db, &path, json!({"belongs_to__application": bob.fleet})).await;
        let moved = one(db, &path).await;
        assert_eq!(moved["is_pinned_on__release"], Value::Null);
        assert_eq!(moved["should_be_running__release"], json!({"__id": foreign}));
        assert_eq!(get(db, &services).await, json!([]), "services of the old fleet are gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_says_when_it_was_last_heard_of() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let owner = owner(db, "ann").await;
        let device = device(db, &owner).await;
        let path = format!("device({device})");
        let of = |value: Value, name: &str| value[name].clone();
        patch(db, &path, json!({"is_connected_to_vpn": true})).await;
        let now = one(db, &path).await;
        assert_eq!(now["is_online"], json!(true));
        assert_eq!(now["last_vpn_event"], json!("2026-11-21T04:00:00.000Z"));
        assert_eq!(now["last_connectivity_event"], json!("2026-11-21T04:00:00.000Z"));
        assert_eq!(now["overall_status"], json!("reduced-functionality"), "no heartbeat yet");

        db.record_heartbeat(device, NOW + 60_000).await.expect("a heartbeat");
        let states = [(0, "online"), (60_000, "timeout"), (74_999, "timeout"), (75_000, "offline")];
        for (later, state) in states {
            let db = db.at(NOW + later);
            assert_eq!(of(one(&db, &path).await, "api_heartbeat_state"), json!(state), "{later}");
        }
        assert_eq!(of(one(db, &path).await, "overall_status"), json!("operational"));
        let off = json!({"is_connected_to_vpn": false});
        patch(db, &path, off).await;
        let status = of(one(db, &path).await, "overall_status");
        assert_eq!(status, json!("reduced-functionality"), "the tunnel is down and should not be");
        let var = json!({"application": owner.fleet, "name": "RESIN_SUPERVISOR_VPN_CONTROL", "value": "false"});
        post(db, "application_config_variable", var).await.expect("a variable");
        assert_eq!(of(one(db, &path).await, "overall_status"), json!("operational"));
        let later = db.at(NOW + 100_000);
        assert_eq!(of(one(&later, &path).await, "overall_status"), json!("disconnected"));
        patch(db, &path, json!({"is_active": false})).await;
        assert_eq!(of(one(db, &path).await, "overall_status"), json!("inactive"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_the_mean_of_what_is_downloaded() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let owner = owner(db, "ann").await;
        let device = device(db, &owner).await;
        let release = release(db, &owner, "c1", json!({})).await;
        let (one_image, other) =
            (image(db, &owner, release, "a").await, image(db, &owner, release, "b").await);
        db.record_heartbeat(device, NOW + 60_000).await.expect("a heartbeat");
        let install = |image, status: &str, download_progress| minke_cloud_db::Install {
            image,
            release,
            status: status.to_owned(),
            download_progress,
        };
        let report = |installs| minke_cloud_db::Report {
            device,
            installs: Some(installs),
            status: object(json!({"os_version": "x".repeat(300), "cpu_temp": 40})),
            ..minke_cloud_db::Report::default()
        };
        let both =
            vec![install(one_image, "Downloading", Some(25)), install(other, "Running", None)];
        db.report(report(both.clone())).await.expect("a report");
        let path = format!("device({device})?$expand=image_install($orderby=id asc)");
        let shown = one(db, &path).await;
        assert_eq!(shown["overall_status"], json!("updating"));
        assert_eq!(shown["overall_progress"], json!(63), "(25 + 100) / 2, rounded");
        assert_eq!(shown["os_version"].as_str().map(str::len), Some(255), "cut, not refused");

        db.report(report(vec![install(other, "Running", None)])).await.expect("a report");
        let shown = one(db, &path).await;
        assert_eq!(shown["image_install"][0]["status"], json!("deleted"));
        assert_eq!(shown["overall_progress"], Value::Null);

        let wrong = minke_cloud_db::Report {
            device,
            status: object(json!({"device_name": "x"})),
            ..minke_cloud_db::Report::default()
        };
        let mut all = Vec::new();
        for n in 0..50 {
            let db = db.clone();
            let report = if n == 25 { wrong.clone() } else { report(both.clone()) };
            all.push(tokio::spawn(async move { db.report(report).await }));
        }
        let mut refused = 0;
        for task in all {
            refused += usize::from(task.await.expect("a task").is_err());
        }
        assert_eq!(refused, 1, "a bad report takes no other with it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn access_follows_memberships() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let bob = owner(db, "bob").await;
        let sees = |fleet: i64| {
            let request = read(&format!("application({fleet})/$count"));
            let caller = bob.caller.clone();
            async move { db.get(&caller, &request).await.expect("a count") == json!(1) }
        };
        assert!(sees(bob.fleet).await && !sees(ann.fleet).await);

        let member = json!({"user": bob.user, "is_member_of__organization": ann.organization});
        let member = post(db, "organization_membership", member).await.expect("a membership").id;
        assert!(sees(ann.fleet).await, "through the organization");
        let root = Caller::root();
        db.delete(&root, &read(&format!("organization_membership({member})"))).await.expect("end");
        assert!(!sees(ann.fleet).await);

        let role = one(db, "application_membership_role(name='developer')").await["id"].clone();
        let direct = json!({"user": bob.user, "is_member_of__application": ann.fleet,
            "application_membership_role": role});
        let direct =
            post(db, "user_application_membership", direct).await.expect("a membership").id;
        assert!(sees(ann.fleet).await, "through a membership of the fleet");
        let path = format!("user_application_membership({direct})");
        patch(db, &path, json!({"user": ann.user})).await;
        assert!(!sees(ann.fleet).await);

        let team = json!({"name": "t", "belongs_to__organization": ann.organization});
        let team = post(db, "team", team).await.expect("a team").id;
        let access = json!({"team": team, "grants_access_to__application": ann.fleet,
            "application_membership_role": role});
        post(db, "team_application_access", access).await.expect("access");
        let member = json!({"user": bob.user, "is_member_of__team": team});
        post(db, "team_membership", member).await.expect("a member");
        assert!(sees(ann.fleet).await, "through a team");
        db.delete(&root, &read(&format!("team({team})"))).await.expect("the end of a team");
        assert!(!sees(ann.fleet).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_cannot_be_pointed_to_or_probed() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let bob = owner(db, "bob").await;
        let device = device(db, &ann).await;
        let hidden = json!({"device": device, "tag_key": "k", "value": "v"});
        let hidden = db.post(&bob.caller, "device_tag", &object(hidden)).await.expect_err("hidden");
        let absent = json!({"device": 999_999, "tag_key": "k", "value": "v"});
        let absent = db.post(&bob.caller, "device_tag", &object(absent)).await.expect_err("absent");
        let same = absent.to_string().replace("999999", &device.to_string());
        assert_eq!(hidden.to_string(), same, "a hidden row is as good as none");

        // Not through filters, counts, orders or expands of what is seen either.
        let organization = format!("organization({})", bob.organization);
        for (request, wanted) in [
            (format!("device/$count?$filter=id eq {device}"), json!(0)),
            (
                format!("application?$select=id&$filter=owns__device/any(d:d/id eq {device})"),
                json!([]),
            ),
            (format!("user?$select=id&$filter=id eq {}", ann.user), json!([])),
            (
                format!("{organization}?$select=id&$expand=application/$count"),
                json!([{"id": bob.organization, "application": 1}]),
            ),
        ] {
            let seen = db.get(&bob.caller, &read(&request)).await;
            assert_eq!(seen.expect(&request), wanted, "{request}");
        }
        let theft = json!({"belongs_to__application": bob.fleet});
        let path = read(&format!("device({device})"));
        let stolen = db.patch(&bob.caller, &path, &object(theft)).await.expect("nothing found");
        assert_eq!(stolen, 0);
        let gift = json!({"belongs_to__application": bob.fleet});
        let given = db.patch(&ann.caller, &path, &object(gift)).await.expect_err("a hidden fleet");
        assert_eq!(given.status(), 400);
        for secret in ["user?$select=password", "api_key?$select=key", "device?$select=api_secret"]
        {
            let error = db.get(&ann.caller, &read(secret)).await.expect_err(secret);
            assert_eq!(error.status(), 400, "{secret}");
        }
        let probe = "user?$select=id&$filter=startswith(password,'h')";
        assert!(db.get(&ann.caller, &read(probe)).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_take_what_belongs_to_the_row() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let device = device(db, &ann).await;
        let uuid = one(db, &format!("device({device})")).await["uuid"].clone();
        let actor = one(db, &format!("device({device})")).await["actor"]["__id"].clone();
        let mut tx = db.begin().await.expect("a transaction");
        let key = NewApiKey {
            actor: actor.as_i64().expect("an actor"),
            hash: "abc",
            roles: &["device-api-key"],
            name: None,
            description: None,
            expires_at: None,
        };
        tx.create_api_key(&key).await.expect("a key");
        tx.commit().await.expect("a commit");
        let found = db.api_key_by_hash("abc").await.expect("a look").expect("the key");
        assert_eq!(found.roles, ["device-api-key"]);

        let fleet = read(&format!("application({})", ann.fleet));
        assert_eq!(db.delete(&ann.caller, &fleet).await.expect("a removal"), 1);
        let uuid = uuid.as_str().expect("a uuid");
        assert_eq!(db.device_by_uuid(uuid).await.expect("a look"), None, "the devices went too");
        assert_eq!(db.api_key_by_hash("abc").await.expect("a look"), None, "and their keys");
        assert_eq!(get(db, &format!("actor({actor})/$count")).await, json!(0));
        let account = db.user_by_login("ann@example.com").await.expect("a look");
        assert_eq!(account.map(|account| account.username), Some("ann".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_whole_or_nothing() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let tag =
            |key: &str| object(json!({"application": ann.fleet, "tag_key": key, "value": "v"}));
        let mut tx = db.begin().await.expect("a transaction");
        tx.post(&ann.caller, "application_tag", &tag("a")).await.expect("a tag");
        let again = tx.post(&ann.caller, "application_tag", &tag("a")).await;
        assert!(matches!(again, Err(Error::Conflict { .. })));
        assert!(tx.commit().await.is_err(), "what failed cannot be kept");
        assert_eq!(get(db, "application_tag").await, json!([]));
        let named = read(&format!("application_tag(application={},tag_key='k')", ann.fleet));
        for value in ["one", "two"] {
            let body = object(json!({"value": value}));
            assert_eq!(db.put(&ann.caller, &named, &body).await.expect("an upsert"), 1);
        }
        let tags = get(db, "application_tag?$select=tag_key,value").await;
        assert_eq!(tags, json!([{"tag_key": "k", "value": "two"}]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_many_rows_is_done_in_parts() {
    let twins = Twins::start().await;
    for (_, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let mut tx = db.begin().await.expect("a transaction");
        for n in 0..1100 {
            let tag = json!({"application": ann.fleet, "tag_key": format!("k{n}"), "value": "v"});
            tx.post(&Caller::root(), "application_tag", &object(tag)).await.expect("a tag");
        }
        tx.commit().await.expect("a commit");
        let all = read("application_tag?$filter=value eq 'v'");
        let body = object(json!({"value": "w"}));
        assert_eq!(db.patch(&ann.caller, &all, &body).await.expect("a change"), 1100);
        assert_eq!(get(db, "application_tag/$count?$filter=value eq 'w'").await, json!(1100));
        let all = read("application_tag?$filter=value eq 'w'");
        assert_eq!(db.delete(&ann.caller, &all).await.expect("a removal"), 1100);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_asks_for_some_of_its_rows_is_refused() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let device = device(db, &ann).await;
        for key in ["a", "b", "c"] {
            let tag = json!({"device": device, "tag_key": key, "value": "v"});
            post(db, "device_tag", tag).await.expect("a tag");
        }
        for option in ["$top=1", "$skip=1", "$orderby=id asc"] {
            let some = read(&format!("device_tag?$filter=device eq {device}&{option}"));
            let body = object(json!({"value": "w"}));
            for done in [
                db.delete(&ann.caller, &some).await,
                db.patch(&ann.caller, &some, &body).await,
                db.put(&ann.caller, &some, &body).await,
            ] {
                let error = done.expect_err(option);
                assert_eq!(error.status(), 400, "{engine} {option}: {error}");
                let name = option.split('=').next().unwrap_or_default();
                assert!(error.to_string().starts_with(name), "{engine} {option}: {error}");
            }
        }
        let left = get(db, "device_tag/$count?$filter=value eq 'v'").await;
        assert_eq!(left, json!(3), "{engine}: all are there as they were");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_release_keeps_its_version() {
    let twins = Twins::start().await;
    for (engine, db) in twins.both() {
        let ann = owner(db, "ann").await;
        let id = release(db, &ann, "c1", json!({"semver": "1.2.3"})).await;
        let draft = release(db, &ann, "c2", json!({"semver": "1.2.3", "is_final": false})).await;
        let parts = [
            json!({"revision": null}),
            json!({"revision": 7}),
            json!({"semver": "2.0.0"}),
            json!({"semver_major": 9}),
            json!({"semver_minor": 9}),
            json!({"semver_patch": 9}),
            json!({"semver_prerelease": "rc"}),
            json!({"semver_build": "b"}),
            json!({"variant": "dev"}),
        ];
        for body in parts {
            let path = read(&format!("release({id})"));
            let error = db.patch(&ann.caller, &path, &object(body.clone())).await;
            let error = error.expect_err(&body.to_string());
            assert_eq!(error.status(), 400, "{engine} {body}: {error}");
            let now = one(db, &format!("release({id})?$select=raw_version,revision")).await;
            assert_eq!(now, json!({"raw_version": "1.2.3", "revision": 0}), "{engine} {body}");
        }
        let path = read(&format!("release({draft})"));
        let seventh = db.patch(&ann.caller, &path, &object(json!({"revision": 7}))).await;
        assert_eq!(seventh.expect_err("a revision").status(), 400, "{engine}");
        let new = json!({"belongs_to__application": ann.fleet, "commit": "c3", "source": "local",
            "composition": {}, "status": "success", "revision": 7});
        let new = db.post(&ann.caller, "release", &object(new)).await;
        assert_eq!(new.expect_err("a revision").status(), 400, "{engine}");
        // A draft may still be named.
        let named = db.patch(&ann.caller, &path, &object(json!({"semver_minor": 9}))).await;
        assert_eq!(named.expect("a new version"), 1, "{engine}");
        let now = one(db, &format!("release({draft})?$select=semver,is_final")).await;
        assert_eq!(now, json!({"semver": "1.9.3", "is_final": false}), "{engine}");
    }
}
