//! Logging in, keys, and whom a credential makes one.

mod world;

use serde_json::{Value, json};
use world::{PASSWORD, World, send};

#[tokio::test]
async fn who_logs_in_is_somebody_and_who_does_not_is_nobody() {
    let world = World::start().await;
    let right = json!({"username": "Ann@Example.org", "password": PASSWORD});
    let token = world.post("/login_", "", &right).await.expect(200).text;
    let me = world.get("/actor/v1/whoami", &token).await.expect(200).json();
    assert_eq!((&me["actorType"], &me["username"]), (&json!("user"), &json!("ann")));
    assert_eq!(me["actorTypeId"], world.ann.user);
    let user = world.get("/user/v1/whoami", &token).await.expect(200).json();
    assert_eq!(user["email"], "ann@example.org");

    for wrong in [
        json!({"username": "ann", "password": "wrong password"}),
        json!({"username": "nobody", "password": PASSWORD}),
        json!({"username": "ann' or '1' eq '1", "password": PASSWORD}),
    ] {
        assert_eq!(world.post("/login_", "", &wrong).await.expect(401).json(), "Unauthorized");
    }
    for path in ["/actor/v1/whoami", "/user/v1/whoami", "/v7/device", "/ping?x=1"] {
        let status = world.get(path, "no such key").await.status.as_u16();
        assert_eq!(status, if path.starts_with("/ping") { 200 } else { 401 }, "{path}");
    }
    world.get("/actor/v1/whoami", "").await.expect(401);
    let mut forged = token.clone();
    forged.pop();
    world.get("/actor/v1/whoami", &forged).await.expect(401);
    let path = format!("/actor/v1/whoami?apikey={token}");
    assert_eq!(world.get(&path, "").await.expect(200).json()["username"], "ann");
}

#[tokio::test]
async fn guessing_a_password_ends_after_ten_tries() {
    let world = World::start().await;
    let wrong = json!({"username": "ann", "password": "wrong password"});
    for _ in 0..10 {
        world.post("/login_", "", &wrong).await.expect(401);
    }
    let right = json!({"username": "ann", "password": PASSWORD});
    let request = world.http.post(format!("{}/login_", world.url)).json(&right);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    let other = json!({"username": "bob", "password": PASSWORD});
    world.post("/login_", "", &other).await.expect(200);
}

#[tokio::test]
async fn a_new_password_ends_the_sessions() {
    let world = World::start().await;
    world.get("/user/v1/whoami", &world.ann.token).await.expect(200);
    world.api.set_password(world.ann.user, "another password").await.unwrap();
    world.get("/user/v1/whoami", &world.ann.token).await.expect(401);
    let old = json!({"username": "ann", "password": PASSWORD});
    world.post("/login_", "", &old).await.expect(401);
    let new = json!({"username": "ann", "password": "another password"});
    world.post("/login_", "", &new).await.expect(200);
}

#[tokio::test]
async fn a_session_is_refreshed_and_made_fresh_by_the_password() {
    let world = World::start().await;
    let token = &world.ann.token;
    let again = world.get("/user/v1/refresh-token", token).await.expect(200).text;
    world.get("/user/v1/whoami", &again).await.expect(200);
    let body = json!({"password": PASSWORD});
    world.post("/user/v1/refresh-token", token, &body).await.expect(200);
    let body = json!({"password": "wrong password"});
    world.post("/user/v1/refresh-token", token, &body).await.expect(401);
}

#[tokio::test]
async fn a_key_is_its_user_until_it_is_over() {
    let world = World::start().await;
    let token = &world.ann.token;
    let body = json!({"name": "ci", "expiryDate": null});
    let key = world.post("/api-key/user/full", token, &body).await.expect(200).json();
    let key = key.as_str().unwrap();
    assert_eq!(key.len(), 32);
    let me = world.get("/actor/v1/whoami", key).await.expect(200).json();
    assert_eq!(me["username"], "ann");
    // A key makes no key: that needs the password.
    world.post("/api-key/user/full", key, &body).await.expect(401);
    world.post("/api-key/user/full", token, &json!({"expiryDate": null})).await.expect(400);
    let past = json!({"name": "x", "expiryDate": "2001-01-01T00:00:00.000Z"});
    world.post("/api-key/user/full", token, &past).await.expect(400);

    let mine = world.get("/v7/api_key?$select=id,name&$filter=name eq 'ci'", token).await.d();
    let id = mine[0]["id"].as_i64().unwrap();
    assert_eq!(
        world.get("/v7/api_key?$filter=name eq 'ci'", &world.bob.token).await.d(),
        json!([])
    );
    assert!(!world.get("/v7/api_key", token).await.text.contains(key), "a key is shown once");
    world.delete(&format!("/v7/api_key({id})"), &world.bob.token).await.expect(200);
    world.get("/actor/v1/whoami", key).await.expect(200);
    world.delete(&format!("/v7/api_key({id})"), token).await.expect(200);
    world.get("/actor/v1/whoami", key).await.expect(401);
}

/// The same session as it is when the password was given an hour ago.
fn an_hour_later(token: &str) -> String {
    let secret = [7; 64];
    let decode = jsonwebtoken::DecodingKey::from_secret(&secret);
    let mut claims = jsonwebtoken::decode::<Value>(token, &decode, &Default::default());
    let claims = &mut claims.as_mut().unwrap().claims;
    claims["authTime"] = json!(claims["authTime"].as_i64().unwrap() - 3_600_000);
    let encode = jsonwebtoken::EncodingKey::from_secret(&secret);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &encode).unwrap()
}

#[tokio::test]
async fn a_key_that_lasts_longer_takes_the_password() {
    let world = World::start().await;
    let token = &world.ann.token;
    let old = an_hour_later(token);
    world.get("/user/v1/whoami", &old).await.expect(200);
    let (soon, later) = ("2999-01-01T00:00:00.000Z", "2999-01-02T00:00:00.000Z");
    let mine = |expiry: Value| json!({"actorType": "user", "actorTypeId": world.ann.user, "roles": ["named-user-api-key"], "name": "ci", "expiryDate": expiry});
    let made =
        async |token: &str, expiry: Value| world.post("/api-key/v2/", token, &mine(expiry)).await;
    for expiry in [json!(null), json!(soon)] {
        made(&old, expiry.clone()).await.expect(401);
        let full = json!({"name": "ci", "expiryDate": expiry});
        world.post("/api-key/user/full", &old, &full).await.expect(401);
    }
    let key = made(token, json!(soon)).await.expect(200).json();
    let key = key.as_str().unwrap();
    made(key, json!(null)).await.expect(400);
    let answer = made(key, json!(later)).await.expect(400);
    assert!(answer.text.contains("expiryDate"), "{}", answer.text);
    made(key, json!(soon)).await.expect(200);

    let query = "/v7/api_key?$select=id&$filter=name eq 'ci'&$orderby=id&$top=1";
    let id = world.get(query, token).await.d()[0]["id"].clone();
    let path = format!("/v7/api_key({id})");
    let expires = async |token: &str, date: Value, status: u16| {
        world.patch(&path, token, &json!({"expiry_date": date})).await.expect(status);
    };
    for credential in [key, old.as_str()] {
        expires(credential, json!(null), 401).await;
        expires(credential, json!(later), 401).await;
        world.patch(&path, credential, &json!({"name": "ci"})).await.expect(200);
    }
    expires(key, json!("2998-01-01T00:00:00.000Z"), 200).await;
    expires(&old, json!(soon), 401).await;
    expires(token, json!(null), 200).await;
    expires(&old, json!(later), 200).await;
}

#[tokio::test]
async fn keys_of_fleets_and_devices_are_put_off_without_the_password() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let device = world.device(fleet).await;
    let token = &world.ann.token;
    let old = an_hour_later(token);
    let (soon, later) = ("2999-01-01T00:00:00.000Z", "2999-01-02T00:00:00.000Z");
    let made = async |path: &str, name: &str, expiry: Value| {
        let key = json!({"name": name, "expiryDate": expiry});
        world.post(path, token, &key).await.expect(200).json().as_str().unwrap().to_owned()
    };
    let of_ann = made("/api-key/user/full", "person", json!(soon)).await;
    let endless = made("/api-key/user/full", "endless", json!(null)).await;
    let path = format!("/api-key/application/{fleet}/provisioning");
    made(&path, "fleet", json!(soon)).await;
    made(&format!("/api-key/device/{}/device-key", device.id), "device", json!(soon)).await;
    let put_off = async |name: &str, credential: &str, date: Value, status: u16| {
        let key = format!("/v7/api_key?$filter=name eq '{name}'");
        world.patch(&key, credential, &json!({"expiry_date": date})).await.expect(status);
        world.get(&format!("{key}&$select=expiry_date"), token).await.d()[0]["expiry_date"].clone()
    };
    for name in ["fleet", "device"] {
        assert_eq!(put_off(name, &of_ann, json!(later), 200).await, later, "{name}");
        assert_eq!(put_off(name, &old, json!(null), 200).await, json!(null), "{name}");
    }
    for credential in [&of_ann, &old] {
        assert_eq!(put_off("person", credential, json!(later), 401).await, soon);
    }
    assert_eq!(put_off("person", &endless, json!(later), 200).await, later, "it could make one");
}

#[tokio::test]
async fn nobody_logs_in_by_the_address_of_another() {
    let world = World::start().await;
    let path = format!("/v7/user({})", world.ann.user);
    for taken in [json!({"username": "bob@example.org"}), json!({"email": "bob"})] {
        world.patch(&path, &world.ann.token, &taken).await.expect(400);
    }
    let login = json!({"username": "bob@example.org", "password": PASSWORD});
    let token = world.post("/login_", "", &login).await.expect(200).text;
    let me = world.get("/user/v1/whoami", &token).await.expect(200).json();
    assert_eq!(me["id"], world.bob.user);
}

#[tokio::test]
async fn keys_are_made_for_ones_own_only_and_in_their_role() {
    let world = World::start().await;
    let fleet = world.fleet("weather").await;
    let body = |role: &str| json!({"actorType": "application", "actorTypeId": fleet, "roles": [role], "expiryDate": null});
    let right = body("provisioning-api-key");
    let key = world.post("/api-key/v2/", &world.ann.token, &right).await.expect(200).json();
    let me = world.get("/actor/v1/whoami", key.as_str().unwrap()).await.expect(200).json();
    assert_eq!((&me["actorType"], &me["slug"]), (&json!("application"), &json!("ann/weather")));
    world.post("/api-key/v1/", &world.ann.token, &right).await.expect(200);
    world.post("/api-key/v2/", &world.bob.token, &right).await.expect(401);
    world.post("/api-key/v2/", key.as_str().unwrap(), &right).await.expect(401);
    world.post("/api-key/v2/", &world.ann.token, &body("default-user")).await.expect(400);
    let path = format!("/api-key/application/{fleet}/provisioning");
    world.post(&path, &world.bob.token, &json!({})).await.expect(401);
    let path = format!("/application/{fleet}/generate-api-key");
    world.post(&path, &world.ann.token, &json!({})).await.expect(200);
}

#[tokio::test]
async fn bodies_that_are_wrong_or_too_large_are_refused_with_the_reason() {
    let world = World::start().await;
    let token = &world.ann.token;
    let raw = |path: &str, body: Vec<u8>| {
        let request = world.request(reqwest::Method::POST, path, token);
        send(request.header("content-type", "application/json").body(body))
    };
    for path in
        ["/login_", "/api-key/v2/", "/device/register", "/v7/application", "/download-config"]
    {
        raw(path, b"{\"a\":".to_vec()).await.expect(400);
        raw(path, b"[1,2]".to_vec()).await.expect(400);
        raw(path, b"\"text\"".to_vec()).await.expect(400);
    }
    let answer = raw("/login_", vec![b' '; 100_000]).await.expect(413);
    assert!(answer.text.contains("65536"), "{}", answer.text);
    let answer = raw("/v7/application", vec![b' '; 9 << 20]).await.expect(413);
    assert!(answer.text.contains("8388608"), "{}", answer.text);
    let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    raw("/v7/application", deep.into_bytes()).await.expect(400);

    for row in [
        json!({"app_name": 5, "organization": world.ann.organization}),
        json!({"app_name": "abcd", "organization": "mine"}),
        json!({"app_name": "abcd", "organization": world.ann.organization, "no_such_field": 1}),
        json!({"app_name": "a", "organization": world.ann.organization, "is_for__device_type": 1}),
    ] {
        let answer = world.post("/v7/application", token, &row).await;
        assert_eq!(answer.status, 400, "{row}: {}", answer.text);
        assert!(matches!(answer.json(), Value::String(_)));
    }
    let answer = world.get("/v7/device?$filter=(((", token).await.expect(400);
    assert!(matches!(answer.json(), Value::String(_)));
    world.get("/v7/no_such_thing", token).await.expect(400);
    let answer = world.get("/v6/device", token).await.expect(404);
    assert!(answer.text.contains("version 7"), "{}", answer.text);
    let form = world.request(reqwest::Method::POST, "/v7/release_asset", token);
    let form = form.header("content-type", "multipart/form-data; boundary=x").body("--x--");
    send(form).await.expect(415);
}

#[tokio::test]
async fn without_a_credential_nothing_large_is_read_nor_kept() {
    let world = World::start().await;
    let long = json!({"username": "a".repeat(255), "password": "x"});
    let answer = world.post("/login_", "", &long).await.expect(400);
    assert!(answer.text.contains("254"), "{}", answer.text);
    // Neither form nor size of the body matters: it is not looked at.
    for method in [reqwest::Method::POST, reqwest::Method::PATCH, reqwest::Method::PUT] {
        for path in ["/v7/application", "/v7/application(1)/canAccess", "/v7/no_such_thing"] {
            if path.ends_with("canAccess") && method != reqwest::Method::POST {
                continue;
            }
            let request = world.request(method.clone(), path, "").body("{not json");
            send(request.header("content-type", "application/json")).await.expect(401);
        }
    }
    world.delete("/v7/application(1)", "").await.expect(401);
    world.get("/v7/device_type?$top=1", "").await.expect(200);
}
