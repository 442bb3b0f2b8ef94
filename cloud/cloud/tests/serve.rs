//! The server as a process: starting, being who it was, moving, stopping.

#[path = "../../db/tests/support/postgres.rs"]
mod postgres;
mod server;

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::json;
use server::{Client, EMAIL, PASSWORD, Server, program};

#[tokio::test]
async fn the_first_start_makes_the_administrator_and_says_the_password_once() {
    let data = tempfile::tempdir().unwrap();
    let serve = |data| {
        let mut command: Command = program();
        command.arg("serve").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]);
        Server::run(&mut command)
    };
    let server = serve(data.path());
    let password =
        server.said.iter().find_map(|line| line.split_once("with the password ")).unwrap().1;
    let login = json!({"username": "admin", "password": password});
    Client::with_token(&server.url, "").post("/login_", &login).await.expect(200);
    assert!(server.stop());
    let again = serve(data.path());
    assert!(again.said.is_empty(), "{:?}", again.said);
    Client::with_token(&again.url, "").post("/login_", &login).await.expect(200);
}

#[tokio::test]
async fn a_server_that_moved_is_the_same_server() {
    let data = tempfile::tempdir().unwrap();
    moved_and_the_same(data.path(), &[]).await;
    assert!(std::fs::read_dir(data.path()).unwrap().flatten().any(is_sqlite));
}

#[tokio::test]
async fn a_server_on_postgresql_that_moved_is_the_same_server() {
    let data = tempfile::tempdir().unwrap();
    let database = tempfile::tempdir().unwrap();
    let database = postgres::Server::start(database.path());
    moved_and_the_same(data.path(), &["--database-url", &database.url()]).await;
    assert!(!std::fs::read_dir(data.path()).unwrap().flatten().any(is_sqlite));
}

fn is_sqlite(file: std::fs::DirEntry) -> bool {
    let begins = |bytes: Vec<u8>| bytes.starts_with(b"SQLite format 3");
    std::fs::read(file.path()).is_ok_and(begins)
}

/// Nobody who used a server at its first address notices, at the second, that it was away.
async fn moved_and_the_same(data: &Path, more: &[&str]) {
    let server = Server::start(data, more);
    let admin = Client::log_in(&server.url, PASSWORD).await;
    let fleet = admin.fleet("weather").await;
    let (uuid, device) = admin.device(fleet).await;
    let now = jiff::Timestamp::now().to_string();
    let release = admin
        .make("release", json!({
            "belongs_to__application": fleet, "commit": "c0ffee", "status": "success", "source": "local",
            "composition": {"services": {"web": {}}}, "start_timestamp": now, "is_final": true,
        }))
        .await;
    let service = admin.make("service", json!({"application": fleet, "service_name": "web"})).await;
    let row = json!({"is_a_build_of__service": service["id"], "status": "success", "start_timestamp": now});
    let image = admin.make("image", row).await;
    let row = json!({"image": image["id"], "is_part_of__release": release["id"]});
    admin.make("image__is_part_of__release", row).await;
    let path = format!("/device/v3/{uuid}/state");
    let before = device.get(&path).await.expect(200);
    let (token, key, tag) =
        (admin.token.clone(), device.token.clone(), before.headers["etag"].clone());
    let old = server.url.clone();
    assert!(server.stop());

    let moved = [more, &["--public-url", "https://fleet.example"]].concat();
    let server = Server::start(data, &moved);
    let device = Client::with_token(&server.url, &key);
    let request = device.request(Method::GET, &path).header("if-none-match", tag);
    let after = Client::send(request).await.expect(200);
    let moved = before.text.replace(old.trim_start_matches("http://"), "fleet.example");
    assert_eq!(after.json(), serde_json::from_str::<serde_json::Value>(&moved).unwrap());
    let admin = Client::with_token(&server.url, &token);
    admin.get("/user/v1/whoami").await.expect(200);
}

#[tokio::test]
async fn one_server_uses_a_directory_and_wrong_settings_are_named() {
    let data = tempfile::tempdir().unwrap();
    let _server = Server::start(data.path(), &[]);
    let refusal = |more: &[&str]| {
        let mut command = program();
        command.arg("serve").arg("--data").arg(data.path()).args(["--listen", "127.0.0.1:0"]);
        let output = command.args(more).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refusal(&[]).contains("another minke-cloud"));
    assert!(refusal(&["--domain", "example.org"]).contains("--public-url"));
    assert!(refusal(&["--blobs", "s3://bucket"]).contains("--blobs"));
    let other = tempfile::tempdir().unwrap();
    let refusal = |more: &[&str]| {
        let mut command = program();
        command.arg("serve").arg("--data").arg(other.path()).args(["--listen", "127.0.0.1:0"]);
        String::from_utf8(command.args(more).output().unwrap().stderr).unwrap()
    };
    let url = refusal(&["--public-url", "fleet.example"]);
    assert!(url.contains("fleet.example") && url.contains("http://"), "{url}");
    let binary = refusal(&["--device-binary", "/no/such/file"]);
    assert!(binary.contains("/no/such/file"), "{binary}");
    let database = refusal(&["--database-url", "postgres://user:s3cret@127.0.0.1:notaport/x"]);
    assert!(database.contains("database") && !database.contains("s3cret"), "{database}");
}

#[tokio::test]
async fn accounts_are_made_and_passwords_reset_beside_the_running_server() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let admin = Client::log_in(&server.url, PASSWORD).await;
    let run = |arguments: &[&str]| {
        let mut command = program();
        command.args(["admin", "--data"]).arg(data.path()).args(arguments);
        let output = command.env_remove("MINKE_PASSWORD").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let said = run(&["reset-password", "--user", EMAIL]);
    let password = said.split_once("the password is ").unwrap().1;
    admin.get("/user/v1/whoami").await.expect(401);
    Client::log_in(&server.url, password).await;
    let said = run(&["create-user", "--email", "ann@example.org"]);
    let password = said.split_once("the password is ").unwrap().1;
    let login = json!({"username": "ann", "password": password});
    Client::with_token(&server.url, "").post("/login_", &login).await.expect(200);
}

/// Makes a release that is being built, with one image; gives both numbers.
async fn building(admin: &Client, fleet: i64, source: &str) -> [i64; 2] {
    let now = jiff::Timestamp::now().to_string();
    let release = admin
        .make("release", json!({
            "belongs_to__application": fleet, "commit": minke_cloud_api::random_hex(), "status": "running",
            "source": source, "composition": {"services": {}}, "start_timestamp": now,
        }))
        .await;
    let (image, _) = image(admin, fleet, source).await;
    let row = json!({"image": image, "is_part_of__release": release["id"]});
    admin.make("image__is_part_of__release", row).await;
    [release["id"].as_i64().unwrap(), image]
}

#[tokio::test]
async fn builds_of_a_killed_server_are_interrupted_at_the_next_start() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let admin = Client::log_in(&server.url, PASSWORD).await;
    let fleet = admin.fleet("weather").await;
    let ours = building(&admin, fleet, "cloud").await;
    let others = building(&admin, fleet, "local").await;
    let token = admin.token.clone();
    drop(server);

    let server = Server::start(data.path(), &[]);
    let admin = Client::with_token(&server.url, &token);
    for ([release, image], status) in [(ours, "interrupted"), (others, "running")] {
        for row in [format!("release({release})"), format!("image({image})")] {
            let found = admin.get(&format!("/v7/{row}")).await.expect(200).json();
            assert_eq!(found["d"][0]["status"], status, "{row}");
            assert_eq!(found["d"][0]["end_timestamp"].is_null(), status == "running", "{row}");
        }
    }
}

/// Makes an image of a new service; gives its number and its repository.
async fn image(admin: &Client, fleet: i64, service: &str) -> (i64, String) {
    let now = jiff::Timestamp::now().to_string();
    let row = json!({"application": fleet, "service_name": service});
    let service = admin.make("service", row).await;
    let row = json!({"is_a_build_of__service": service["id"], "status": "running", "start_timestamp": now});
    let image = admin.make("image", row).await;
    let location = image["is_stored_at__image_location"].as_str().unwrap();
    (image["id"].as_i64().unwrap(), location.split_once('/').unwrap().1.to_owned())
}

/// A token of the registry for a repository.
async fn token(client: &Client, place: &str, actions: &str) -> String {
    let path = format!("/auth/v1/token?service=x&scope=repository:{place}:{actions}");
    client.get(&path).await.expect(200).json()["token"].as_str().unwrap().to_owned()
}

/// Stores a blob; gives its path and whoever may see it.
async fn store(admin: &Client, place: &str) -> (String, Client) {
    let pusher = Client::with_token(&admin.url, &token(admin, place, "pull,push").await);
    let upload = pusher.post(&format!("/v2/{place}/blobs/uploads/"), &json!({})).await.expect(202);
    let upload = upload.headers["location"].to_str().unwrap().replace(&admin.url, "");
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let separator = if upload.contains('?') { '&' } else { '?' };
    let put = pusher.request(Method::PUT, &format!("{upload}{separator}digest={digest}"));
    Client::send(put.body("hello")).await.expect(201);
    (format!("/v2/{place}/blobs/{digest}"), pusher)
}

#[tokio::test]
async fn the_repository_of_a_deleted_image_goes() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let admin = Client::log_in(&server.url, PASSWORD).await;
    let fleet = admin.fleet("weather").await;
    let (gone, gone_place) = image(&admin, fleet, "old").await;
    let (_, kept_place) = image(&admin, fleet, "web").await;
    for place in [&gone_place, &kept_place] {
        store(&admin, place).await;
    }
    Client::send(admin.request(Method::DELETE, &format!("/v7/image({gone})"))).await.expect(200);
    let folder = |place: &str| data.path().join("blobs/objects/repositories").join(place);
    assert!(folder(&gone_place).is_dir() && folder(&kept_place).is_dir());
    assert!(server.stop());

    // Looked after at every start, and then once a day.
    let server = Server::start(data.path(), &[]);
    let begun = std::time::Instant::now();
    while folder(&gone_place).join("_layers").exists() {
        assert!(begun.elapsed().as_secs() < 60, "it is still there");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let admin = Client::with_token(&server.url, &admin.token);
    let pusher = Client::with_token(&server.url, &token(&admin, &kept_place, "pull").await);
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let kept = pusher.get(&format!("/v2/{kept_place}/blobs/{digest}")).await.expect(200);
    assert_eq!(kept.text, "hello");
}

#[tokio::test]
async fn images_go_in_and_out_with_the_servers_tokens() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let admin = Client::log_in(&server.url, PASSWORD).await;
    let fleet = admin.fleet("weather").await;
    let (_, place) = image(&admin, fleet, "web").await;
    let challenge = Client::with_token(&server.url, "").get("/v2/").await.expect(401);
    let challenge = challenge.headers["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains(&format!("realm=\"{}/auth/v1/token\"", server.url)), "{challenge}");

    let (blob, pusher) = store(&admin, &place).await;
    assert_eq!(pusher.get(&blob).await.expect(200).text, "hello");

    admin.fleet("garden").await;
    let nobody = Client::with_token(&server.url, "");
    let stranger = Client::with_token(&server.url, &token(&nobody, &place, "pull").await);
    let refused = stranger.get(&blob).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
    let (_, device) = admin.device(fleet).await;
    let nothing = Client::with_token(&server.url, &token(&device, &place, "pull,push").await);
    let refused = nothing.post(&format!("/v2/{place}/blobs/uploads/"), &json!({})).await;
    assert!(refused.status.is_client_error(), "a device pushes nothing: {refused:?}");
}

#[tokio::test]
async fn an_open_registry_runs_on_its_own() {
    let data = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args(["registry", "--open", "--listen", "127.0.0.1:0", "--data"]).arg(data.path());
    let server = Server::run(&mut command);
    Client::with_token(&server.url, "").get("/v2/").await.expect(200);
    assert!(server.stop());
    let closed = program().args(["registry", "--data"]).arg(data.path()).output().unwrap();
    assert!(!closed.status.success());
}

#[tokio::test]
async fn an_idle_server_stays_within_its_memory() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let admin = Client::log_in(&server.url, PASSWORD).await;
    let fleet = admin.fleet("weather").await;
    let (uuid, device) = admin.device(fleet).await;
    for _ in 0..20 {
        device.get(&format!("/device/v3/{uuid}/state")).await.expect(200);
        device.patch("/device/v3/state", &json!({&uuid: {"status": "Idle"}})).await.expect(200);
    }
    // Each takes 19 MB for a moment.
    for _ in 0..10 {
        Client::log_in(&server.url, PASSWORD).await;
    }
    let memory = server.memory();
    assert!(memory <= 80 * 1024, "{memory} kB");
}
