//! A server whose certificate only its own authority vouches for.

use std::sync::Arc;

use minke_device_store::write_atomic;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// Made for the tests of the tunnel, whose server is 127.0.0.1 too.
macro_rules! made {
    ($name:literal) => {
        include_bytes!(concat!("../../../tunnel/tests/tunnel/tls/", $name))
    };
}

/// Answers every request over TLS with an empty 200; gives its address.
async fn server() -> String {
    let certificate = CertificateDer::from_pem_slice(made!("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made!("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // One that does not believe this server ends the handshake.
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            socket.write_all(answer).await.unwrap();
            socket.shutdown().await.unwrap();
        }
    });
    format!("https://{address}")
}

/// Answers every request for `/start` with this status and the address `to`, all others with 200.
async fn redirecting(status: StatusCode, to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new()
        .route("/start", axum::routing::any(async move || (status, [("location", to)])))
        .fallback(async |method: Method, body: String| format!("{method} {body}"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

#[tokio::test]
async fn a_redirect_is_followed_only_with_the_method_the_body_and_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let http = crate::fake_cloud::device(dir.path(), "http://127.0.0.1:1");
    let elsewhere = redirecting(StatusCode::OK, String::new()).await;
    let ask = async |status: u16, to: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        let server = redirecting(status, to.to_owned()).await;
        let config = http.config_file().get();
        let request = http.request_at(&server, &config, Method::PATCH, "/start", Some("key"));
        let response = send("asking", request.unwrap().body("body")).await?;
        body("asking", response, 100).await
    };
    for status in [307, 308] {
        assert_eq!(ask(status, "/other").await.unwrap(), b"PATCH body");
    }
    for (status, to) in [(301, "/other"), (303, "/other"), (307, &*elsewhere), (307, "/start")] {
        let error = ask(status, to).await.unwrap_err();
        assert_eq!(error.status().map(|status| status.as_u16()), Some(status), "{error}");
        assert!(error.to_string().contains(to), "{error}");
    }
}

#[tokio::test]
async fn a_server_is_believed_for_the_authority_in_config_json() {
    let dir = tempfile::tempdir().unwrap();
    let url = server().await;
    let http = crate::fake_cloud::device(dir.path(), &url);
    let ask = async || {
        let config = http.config_file().get();
        send("asking", http.request(&config, Method::GET, "/ping", None)?).await.map(drop)
    };
    let configure = |root_ca: &str| {
        let config = json!({"apiEndpoint": &url, "balenaRootCA": root_ca}).to_string();
        write_atomic(&dir.path().join("config.json"), config.as_bytes(), 0o600).unwrap();
    };
    assert!(matches!(ask().await, Err(HttpError::Transport { .. })), "nobody vouches for it");
    // Without a new start: config.json is written while the process runs.
    configure(&STANDARD.encode(made!("ca.pem")));
    ask().await.unwrap();
    for useless in ["not base64", "AAAA"] {
        configure(useless);
        assert!(matches!(ask().await, Err(HttpError::RootCa)), "{useless}");
    }
    configure("");
    assert!(matches!(ask().await, Err(HttpError::Transport { .. })), "it is not believed any more");
}
