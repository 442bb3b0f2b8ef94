//! Where clients come from: the unix socket, and TCP if that is asked for.
//!
//! Whoever reaches the API owns the machine. So TCP is for clients with a certificate of the given
//! authority, and without TLS only for loopback, with a warning.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::socket::Socket;
use crate::options::{EngineOptions, TcpOptions, TlsFiles};

/// After so long without a word, a TCP client is asked whether it is there.
const QUIET: Duration = Duration::from_secs(60);
/// What was sent to it may go unheard for so long.
const UNHEARD: Duration = Duration::from_secs(120);

/// The open listeners.
pub(super) struct Listeners {
    unix: UnixListener,
    tcp: Option<(TcpListener, Option<TlsAcceptor>)>,
}

/// A connection that may still have to be made a secure one.
pub(super) enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, Option<TlsAcceptor>),
}

impl Listeners {
    pub(super) async fn open(options: &EngineOptions) -> anyhow::Result<Listeners> {
        let unix = bind(&options.socket)?;
        let tcp = match &options.tcp {
            Some(tcp) => Some(bind_tcp(tcp).await?),
            None => None,
        };
        Ok(Listeners { unix, tcp })
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let Some((tcp, acceptor)) = &self.tcp else {
            return Ok(Accepted::Unix(self.unix.accept().await?.0));
        };
        // Both arms are cancel-safe.
        tokio::select! {
            accepted = self.unix.accept() => Ok(Accepted::Unix(accepted?.0)),
            accepted = tcp.accept() => {
                let (stream, _) = accepted?;
                // Small frames of terminals must not wait for one another.
                stream.set_nodelay(true)?;
                end_when_unheard(&stream)?;
                Ok(Accepted::Tcp(stream, acceptor.clone()))
            }
        }
    }
}

/// A client whose network is gone would hold up what it is attached to.
fn end_when_unheard(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, QUIET)?;
    sockopt::set_tcp_keepintvl(stream, QUIET / 4)?;
    Ok(sockopt::set_tcp_user_timeout(stream, UNHEARD.as_millis() as u32)?)
}

impl Accepted {
    /// The connection as requests are read from it.
    pub(super) async fn secure(self) -> io::Result<Socket> {
        match self {
            Accepted::Unix(stream) => Ok(Socket::Unix(stream)),
            Accepted::Tcp(stream, None) => Ok(Socket::Tcp(stream)),
            Accepted::Tcp(stream, Some(acceptor)) => {
                Ok(Socket::Tls(Box::new(acceptor.accept(stream).await?)))
            }
        }
    }
}

fn bind(socket: &Path) -> anyhow::Result<UnixListener> {
    if let Some(parent) = socket.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    // The data directory is locked by us: a socket that is there is a dead engine's.
    let _ = std::fs::remove_file(socket);
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("setting the mode of {}", socket.display()))?;
    Ok(listener)
}

async fn bind_tcp(tcp: &TcpOptions) -> anyhow::Result<(TcpListener, Option<TlsAcceptor>)> {
    let address = tcp.address;
    let acceptor = match &tcp.tls {
        Some(files) => Some(acceptor(files)?),
        None if address.ip().is_loopback() => {
            tracing::warn!(
                %address,
                "TCP without TLS: every user and process of this machine can do anything as root"
            );
            None
        }
        None => bail!(
            "listening on {address} without TLS would give this machine to everybody who reaches it: give --tls-ca, --tls-cert and --tls-key, or a loopback address"
        ),
    };
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    Ok((listener, acceptor))
}

fn acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).with_context(|| format!("reading {}", files.ca.display()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .with_context(|| format!("taking {} as the clients' authority", files.ca.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("reading the key {}", files.key.display()))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing versions of TLS")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.cert)?, key)
        .with_context(|| format!("using the certificate {}", files.cert.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let reading = || format!("reading certificates from {}", path.display());
    let found = CertificateDer::pem_file_iter(path).with_context(reading)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().with_context(reading)?;
    if found.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(found)
}
