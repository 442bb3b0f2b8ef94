//! TLS with the server's own certificate authority, as `config.json` brings it.
//!
//! The certificates in `tls/` are for 127.0.0.1 and these tests only; they end in a hundred years.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::fixture::{Device, KEY, Server, UUID, exchange, reverse, service, soon};

/// What stands in front of a server and speaks TLS; counts the handshakes that failed.
async fn front(server: SocketAddr) -> (SocketAddr, watch::Receiver<u32>) {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
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
    let (refused, refusals) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            match acceptor.accept(socket).await {
                Ok(mut near) => drop(tokio::spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    // How a connection ends is of no interest here.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                })),
                Err(_) => refused.send_modify(|count| *count += 1),
            }
        }
    });
    (address, refusals)
}

#[tokio::test]
async fn a_server_is_believed_for_its_own_authority_only() {
    use base64::Engine;
    let server = Server::start().await;
    let (front, mut refusals) = front(server.address).await;
    let device = Device::start_with(([127, 0, 0, 1], 1).into(), KEY, |_| {}).await;
    // Without the authority the device refuses the server, again and again.
    device.configure(&format!("https://{front}"), KEY);
    soon(refusals.wait_for(|count| *count >= 2)).await.unwrap();
    assert!(!server.hub.is_connected(UUID));

    let authority = include_bytes!("tls/ca.pem");
    device.write_config(&serde_json::json!({
        "apiEndpoint": format!("https://{front}"), "uuid": UUID, "deviceApiKey": KEY,
        "deviceId": 1, "registered_at": 1,
        "balenaRootCA": base64::engine::general_purpose::STANDARD.encode(authority),
    }));
    server.until_connected(true).await;
    let port = service(reverse).await;
    let stream = soon(server.hub.open_tcp(UUID, port)).await.unwrap();
    assert_eq!(soon(exchange(stream, &[7; 200_000])).await, [7; 200_000]);
    device.stop().await;
}
