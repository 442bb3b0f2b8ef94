//! Who may do what with which token.

use std::time::Duration;

use minke_cloud_blobs::Digest;
use minke_cloud_registry::Auth;
use minke_cloud_registry::token::{Access, LIFETIME, Signer};

use crate::fixture::{OCI_MANIFEST, Server, image};
use crate::http::{Answer, request};

const SERVICE: &str = "registry.example";

async fn guarded() -> (Server, Signer) {
    let signer = Signer::ephemeral("https://server").unwrap();
    let auth = Auth::Token {
        verifier: signer.verifier(SERVICE),
        realm: "https://server/auth/v1/token".to_owned(),
        service: SERVICE.to_owned(),
    };
    (Server::start(auth).await, signer)
}

fn token(signer: &Signer, access: Vec<Access>) -> String {
    signer.sign("u_1", SERVICE, access, LIFETIME).unwrap()
}

async fn push(server: &Server, repo: &str, token: &str, bytes: &[u8]) -> Answer {
    let path = format!("/v2/{repo}/blobs/uploads/?digest={}", Digest::of(bytes));
    request("POST", &path).bearer(Some(token)).body(bytes).send(server.address).await
}

#[tokio::test]
async fn the_matrix_of_actions_and_tokens() {
    let (server, signer) = guarded().await;
    let grant = |actions: &[&str]| token(&signer, vec![Access::repository("a", actions)]);
    let everything = grant(&["pull", "push", "delete"]);
    let manifest = image(b"{}", &[]).to_string();
    let digest = Digest::of(b"{}");
    let (blob, tag) = (format!("/v2/a/blobs/{digest}"), "/v2/a/manifests/v1");
    let tokens = [
        ("none", None),
        ("pull", Some(grant(&["pull"]))),
        ("push", Some(grant(&["pull", "push"]))),
        ("delete", Some(everything.clone())),
        ("other", Some(token(&signer, vec![Access::repository("b", &["pull", "push", "delete"])]))),
        ("forged", Some(token(&Signer::ephemeral("https://server").unwrap(), vec![]))),
    ];
    // Which of the tokens above suffice for each request.
    let cases = [
        ("GET", "/v2/", vec!["pull", "push", "delete", "other"]),
        ("GET", tag, vec!["pull", "push", "delete"]),
        ("GET", blob.as_str(), vec!["pull", "push", "delete"]),
        ("HEAD", blob.as_str(), vec!["pull", "push", "delete"]),
        ("GET", "/v2/a/tags/list", vec!["pull", "push", "delete"]),
        ("POST", "/v2/a/blobs/uploads/", vec!["push", "delete"]),
        ("PUT", tag, vec!["push", "delete"]),
        ("DELETE", tag, vec!["delete"]),
        ("DELETE", blob.as_str(), vec!["delete"]),
        ("GET", "/v2/_catalog", vec![]),
    ];
    for (method, path, allowed) in cases {
        for (name, token) in &tokens {
            // Put back what an allowed DELETE took.
            assert_eq!(push(&server, "a", &everything, b"{}").await.status, 201);
            let put = request("PUT", tag).bearer(Some(&everything));
            let put = put.header("content-type", OCI_MANIFEST).body(manifest.clone());
            assert_eq!(put.send(server.address).await.status, 201);

            let request = request(method, path).bearer(token.as_deref());
            let body = if method == "PUT" { manifest.clone() } else { String::new() };
            let answer = request.body(body).send(server.address).await;
            let refused = answer.status == 401;
            assert_eq!(refused, !allowed.contains(name), "{method} {path} {name}: {answer:?}");
            assert!(refused || answer.status < 300, "{method} {path} {name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn the_challenge_says_where_to_get_which_token() {
    let (server, signer) = guarded().await;
    let challenge = |token: Option<String>, method: &'static str, path: &'static str| {
        let request = request(method, path).bearer(token.as_deref());
        let address = server.address;
        async move {
            let answer = request.send(address).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"));
            assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
            answer.header("www-authenticate").unwrap().to_owned()
        }
    };
    let start = "Bearer realm=\"https://server/auth/v1/token\",service=\"registry.example\"";
    assert_eq!(challenge(None, "GET", "/v2/").await, start);
    let pull = challenge(None, "GET", "/v2/v2/00ff/manifests/latest").await;
    assert_eq!(pull, format!("{start},scope=\"repository:v2/00ff:pull\""));
    let push = challenge(Some(token(&signer, vec![])), "POST", "/v2/a/blobs/uploads/").await;
    let expected = "scope=\"repository:a:pull,push\",error=\"insufficient_scope\"";
    assert_eq!(push, format!("{start},{expected}"));
    let invalid = challenge(Some("a.b.c".to_owned()), "GET", "/v2/").await;
    assert_eq!(invalid, format!("{start},error=\"invalid_token\""));
}

#[tokio::test]
async fn a_token_ends() {
    let (server, signer) = guarded().await;
    let ended = signer.sign_at("u", SERVICE, vec![], 1_000_000_000, Duration::from_secs(60));
    let answer = request("GET", "/v2/").bearer(Some(&ended.unwrap())).send(server.address).await;
    assert_eq!(answer.status, 401);
    let to_come = signer.sign_at("u", SERVICE, vec![], 99_999_999_999, LIFETIME).unwrap();
    let answer = request("GET", "/v2/").bearer(Some(&to_come)).send(server.address).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_mount_needs_the_right_to_read_where_it_comes_from() {
    let (server, signer) = guarded().await;
    let on_a = token(&signer, vec![Access::repository("a", &["pull", "push"])]);
    assert_eq!(push(&server, "a", &on_a, b"secret").await.status, 201);
    let path = format!("/v2/b/blobs/uploads/?mount={}&from=a", Digest::of(b"secret"));
    let on_b = Access::repository("b", &["pull", "push"]);
    let mount = |access: Vec<Access>| {
        request("POST", &path).bearer(Some(&token(&signer, access))).send(server.address)
    };
    // As if it did not exist: the answer does not tell.
    assert_eq!(mount(vec![on_b.clone()]).await.status, 202);
    assert_eq!(mount(vec![on_b.clone(), Access::repository("a", &["push"])]).await.status, 202);
    assert_eq!(mount(vec![on_b, Access::repository("a", &["pull"])]).await.status, 201);
}

#[tokio::test]
async fn a_second_name_can_be_read_and_not_written() {
    let (server, signer) = guarded().await;
    let own = token(&signer, vec![Access::repository("v2/00ff", &["pull", "push"])]);
    assert_eq!(push(&server, "v2/00ff", &own, b"layer").await.status, 201);
    let mut alias = Access::repository("org/app", &["pull", "push"]);
    alias.alias = Some("v2/00ff".to_owned());
    let alias = token(&signer, vec![alias]);
    let path = format!("/v2/org/app/blobs/{}", Digest::of(b"layer"));
    let read = request("GET", &path).bearer(Some(&alias)).send(server.address).await;
    assert_eq!((read.status, read.text().as_str()), (200, "layer"));
    assert_eq!(push(&server, "org/app", &alias, b"other").await.status, 401);
}

#[tokio::test]
async fn one_pusher_cannot_take_the_uploads_of_all() {
    let (server, signer) = guarded().await;
    let signed = |subject: &str, repo: &str| {
        let access = vec![Access::repository(repo, &["pull", "push"])];
        signer.sign(subject, SERVICE, access, LIFETIME).unwrap()
    };
    let begin = async |token: &str, repo: &str| {
        let path = format!("/v2/{repo}/blobs/uploads/");
        request("POST", &path).bearer(Some(token)).send(server.address).await
    };
    let (one, elsewhere) = (signed("u_1", "a"), signed("u_1", "b"));
    for _ in 0..256 {
        assert_eq!(begin(&one, "a").await.status, 202);
    }
    // In another repository too: anybody can make as many as they like.
    for (token, repo) in [(&one, "a"), (&elsewhere, "b")] {
        let refused = begin(token, repo).await;
        assert_eq!((refused.status, refused.code().as_str()), (429, "TOOMANYREQUESTS"));
    }
    assert_eq!(begin(&signed("u_2", "b"), "b").await.status, 202);
}
