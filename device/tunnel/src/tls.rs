//! Whom the device believes: the public certificate authorities, the server's own one from
//! `config.json`, and those in the file that `SSL_CERT_FILE` names.

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
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(pem) = root_ca
        && add(&mut roots, CertificateDer::pem_slice_iter(pem).flatten()) == 0
    {
        return Err(TlsError::RootCa);
    }
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        match CertificateDer::pem_file_iter(&path) {
            Ok(certificates) => drop(add(&mut roots, certificates.flatten())),
            Err(error) => tracing::warn!(?path, %error, "SSL_CERT_FILE cannot be read"),
        }
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
