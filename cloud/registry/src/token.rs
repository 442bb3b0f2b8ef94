//! Registry tokens: short-lived ES256 JWTs that list what their bearer may do.
//!
//! The API signs them, the registry checks them; they share a key pair and nothing else.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use minke_cloud_blobs::Digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::{Deserialize, Serialize};

/// How long a token is usually good for.
pub const LIFETIME: Duration = Duration::from_secs(4 * 3600);

/// A token longer than this is refused unread. A release of 200 services fits.
const MAX_TOKEN: usize = 64 * 1024;

/// One thing that a token allows, or that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `repository`, or `registry` for the catalog.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the repository.
    pub name: String,
    /// Some of `pull`, `push`, `delete`, `*`.
    pub actions: Vec<String>,
    /// The repository that `name` stands for, when it is a second name; read only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub alias: Option<String>,
}

/// The text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a scope is `type:name:action,action`")]
pub struct ScopeError;

impl Access {
    /// Access to a repository under its own name.
    pub fn repository(name: impl Into<String>, actions: &[&str]) -> Self {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        Self { kind: "repository".to_owned(), name: name.into(), actions, alias: None }
    }

    /// Whether `action` is among the actions.
    pub fn allows(&self, action: &str) -> bool {
        self.actions.iter().any(|allowed| allowed == action || allowed == "*")
    }
}

/// Reads a scope as clients send it: `repository:org/app:pull,push`.
impl FromStr for Access {
    type Err = ScopeError;

    fn from_str(scope: &str) -> Result<Self, ScopeError> {
        let (kind, rest) = scope.split_once(':').ok_or(ScopeError)?;
        let (name, actions) = rest.rsplit_once(':').ok_or(ScopeError)?;
        if kind.is_empty() || name.is_empty() || scope.len() > 1024 {
            return Err(ScopeError);
        }
        let actions: Vec<_> =
            actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned).collect();
        Ok(Self { kind: kind.to_owned(), name: name.to_owned(), actions, alias: None })
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who signed it.
    pub iss: String,
    /// The registry it is for.
    pub aud: String,
    /// Whom it was given to.
    pub sub: String,
    /// A number of its own.
    pub jti: String,
    /// Seconds since 1970 from which it holds.
    pub nbf: u64,
    /// Seconds since 1970 at which it ends.
    pub exp: u64,
    /// What it allows.
    pub access: Vec<Access>,
}

/// Why a key or a token was not usable.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The key file could not be read or made.
    #[error("cannot use the key file {path}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The system's own error.
        #[source]
        cause: io::Error,
    },
    /// The key is not a P-256 private key in PKCS#8.
    #[error("the registry's signing key is damaged: {0}")]
    Key(String),
    /// Signing failed.
    #[error("cannot sign a registry token")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// The token is longer than any we sign.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// The token is forged, out of date, or for another registry.
    #[error("the token does not hold")]
    Invalid(#[source] jsonwebtoken::errors::Error),
}

/// Signs tokens. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    public: Arc<[u8]>,
    key_id: String,
    issuer: String,
}

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Rules>);

struct Rules {
    key: DecodingKey,
    validation: Validation,
}

impl Signer {
    /// A signer with a fresh key that lives as long as the process.
    pub fn ephemeral(issuer: &str) -> Result<Self, TokenError> {
        Self::from_pkcs8(&new_key()?, issuer)
    }

    /// Reads the key in `path`; the first time, makes it (0600). `issuer` names the server.
    pub fn open(path: &Path, issuer: &str) -> Result<Self, TokenError> {
        let failed = |cause| TokenError::KeyFile { path: path.to_owned(), cause };
        match fs::read(path) {
            Ok(pkcs8) => Self::from_pkcs8(&pkcs8, issuer),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pkcs8 = new_key()?;
                write_secret(path, &pkcs8).map_err(failed)?;
                Self::from_pkcs8(&pkcs8, issuer)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn from_pkcs8(pkcs8: &[u8], issuer: &str) -> Result<Self, TokenError> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new())
                .map_err(|error| TokenError::Key(error.to_string()))?;
        let public: Arc<[u8]> = pair.public_key().as_ref().into();
        Ok(Self {
            key: EncodingKey::from_ec_der(pkcs8),
            key_id: Digest::of(&public).hex()[..32].to_owned(),
            public,
            issuer: issuer.to_owned(),
        })
    }

    /// A token that allows `subject` what `access` lists, at the registry `service`, from now
    /// for `lifetime` (usually [`LIFETIME`]).
    pub fn sign(
        &self,
        subject: &str,
        service: &str,
        access: Vec<Access>,
        lifetime: Duration,
    ) -> Result<String, TokenError> {
        self.sign_at(subject, service, access, seconds_since_epoch(), lifetime)
    }

    /// As [`Signer::sign`], for a token that begins at `from`, in seconds since 1970.
    pub fn sign_at(
        &self,
        subject: &str,
        service: &str,
        access: Vec<Access>,
        from: u64,
        lifetime: Duration,
    ) -> Result<String, TokenError> {
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: service.to_owned(),
            sub: subject.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            nbf: from,
            exp: from + lifetime.as_secs(),
            access,
        };
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(TokenError::Sign)
    }

    /// What checks this signer's tokens for the registry `service`.
    pub fn verifier(&self, service: &str) -> Verifier {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[service]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss"]);
        validation.validate_nbf = true;
        let key = DecodingKey::from_ec_der(&self.public);
        Verifier(Arc::new(Rules { key, validation }))
    }
}

impl Verifier {
    /// What `token` says, when it holds now.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        jsonwebtoken::decode::<Claims>(token, &self.0.key, &self.0.validation)
            .map(|data| data.claims)
            .map_err(TokenError::Invalid)
    }
}

fn seconds_since_epoch() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn new_key() -> Result<Vec<u8>, TokenError> {
    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map(|document| document.as_ref().to_vec())
        .map_err(|error| TokenError::Key(error.to_string()))
}

fn write_secret(path: &Path, secret: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let scratch = path.with_extension("new");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
    file.write_all(secret)?;
    file.sync_all()?;
    fs::rename(&scratch, path)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn access() -> Vec<Access> {
        vec![Access::repository("v2/00ff", &["pull", "push"])]
    }

    #[test]
    fn a_token_holds_for_its_registry_only() {
        let signer = Signer::ephemeral("https://server").unwrap();
        let token = signer.sign("u_admin", "registry", access(), LIFETIME).unwrap();
        let claims = signer.verifier("registry").verify(&token).unwrap();
        assert_eq!((claims.sub.as_str(), claims.access), ("u_admin", access()));
        assert!(signer.verifier("another").verify(&token).is_err());
        let stranger = Signer::ephemeral("https://server").unwrap();
        assert!(stranger.verifier("registry").verify(&token).is_err());
    }

    #[test]
    fn forged_and_overlong_tokens_are_refused() {
        let signer = Signer::ephemeral("s").unwrap();
        let token = signer.sign("a", "r", access(), LIFETIME).unwrap();
        let verifier = signer.verifier("r");
        let (head, signature) = token.rsplit_once('.').unwrap();
        let other = signer.sign("b", "r", vec![], LIFETIME).unwrap();
        let (other_head, _) = other.rsplit_once('.').unwrap();
        for forged in [
            format!("{other_head}.{signature}"),
            format!("{head}."),
            String::new(),
            "a.b.c".to_owned(),
        ] {
            assert!(matches!(verifier.verify(&forged), Err(TokenError::Invalid(_))), "{forged}");
        }
        assert!(matches!(verifier.verify(&"x".repeat(70_000)), Err(TokenError::TooLong)));
    }

    #[test]
    fn the_key_is_made_once_and_is_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/registry");
        let token = Signer::open(&path, "s").unwrap().sign("a", "r", access(), LIFETIME).unwrap();
        let again = Signer::open(&path, "s").unwrap();
        assert!(again.verifier("r").verify(&token).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"rubbish").unwrap();
        assert!(matches!(Signer::open(&path, "s"), Err(TokenError::Key(_))));
    }

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        let scope: Access = "repository:org/app:pull,push".parse().unwrap();
        assert_eq!(scope, Access::repository("org/app", &["pull", "push"]));
        let with_port: Access = "repository:host:5000/app:pull".parse().unwrap();
        assert_eq!(with_port.name, "host:5000/app");
        for text in ["", "repository", "repository:x", "::pull", "a::"] {
            assert!(text.parse::<Access>().is_err(), "{text:?}");
        }
    }
}
