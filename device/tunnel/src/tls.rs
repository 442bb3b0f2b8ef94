//! Whom the device believes: those whom its operating system believes (`SSL_CERT_FILE` names another list),
//! as for all else that it asks the server, and the server's own authority from `config.json`.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("balenaRootCA in config.json holds no certificate that can be used")]
    RootCa,
    #[error("TLS cannot be set up")]
    Protocol(#[source] rustls::Error),
}

pub(crate) fn config(root_ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    let of_system = rustls_native_certs::load_native_certs();
    for error in &of_system.errors {
        tracing::warn!(%error, "certificates of the system cannot be read");
    }
    add(&mut roots, of_system.certs.into_iter());
    if let Some(pem) = root_ca
        && add(&mut roots, CertificateDer::pem_slice_iter(pem).flatten()) == 0
    {
        return Err(TlsError::RootCa);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn add(
    roots: &mut RootCertStore,
    certificates: impl Iterator<Item = CertificateDer<'static>>,
) -> usize {
    roots.add_parsable_certificates(certificates).0
}
