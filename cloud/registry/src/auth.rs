//! Who may do what: everybody (an open mirror), or whoever brings a token that says so.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::error::RegistryError;
use crate::path::Repository;
use crate::token::{Access, Verifier};

/// How a registry decides.
#[derive(Clone)]
pub enum Auth {
    /// Anybody may pull, push, delete and list.
    Open,
    /// Docker's token scheme.
    Token {
        /// Checks the tokens.
        verifier: Verifier,
        /// URL where clients get tokens.
        realm: String,
        /// The registry's name, as clients repeat it to the realm.
        service: String,
    },
}

/// What can be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Pull,
    Push,
    Delete,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// What a client asks a token for when it wants this.
    fn scope(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "delete",
        }
    }
}

/// The sender of a request, as its `Authorization` header shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// No token was sent.
    Anonymous,
    /// A token was sent that does not hold.
    Refused,
    /// A token that holds.
    Granted {
        /// Whom it was given to.
        subject: String,
        /// What it allows.
        access: Vec<Access>,
    },
}

impl Caller {
    /// Whose an upload into `repo` is: where there are no tokens, the repository's.
    pub(crate) fn owner_of_uploads<'a>(&'a self, repo: &'a Repository) -> &'a str {
        match self {
            Self::Granted { subject, .. } if !subject.is_empty() => subject,
            _ => repo.as_str(),
        }
    }
}

impl Auth {
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Caller {
        let Self::Token { verifier, .. } = self else { return Caller::Anonymous };
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, token)) = header.and_then(|value| value.split_once(' ')) else {
            return Caller::Anonymous;
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Caller::Anonymous;
        }
        match verifier.verify(token.trim()) {
            Ok(claims) => Caller::Granted { subject: claims.sub, access: claims.access },
            Err(error) => {
                tracing::debug!(%error, "refused a registry token");
                Caller::Refused
            }
        }
    }

    /// Any valid token will do.
    pub(crate) fn require_any(&self, caller: &Caller) -> Result<(), RegistryError> {
        match (self, caller) {
            (Self::Open, _) | (_, Caller::Granted { .. }) => Ok(()),
            _ => Err(self.challenge(caller, None)),
        }
    }

    /// Listing all repositories is a right of its own.
    pub(crate) fn require_catalog(&self, caller: &Caller) -> Result<(), RegistryError> {
        let granted = match caller {
            Caller::Granted { access, .. } => access.iter().any(|access| {
                access.kind == "registry" && access.name == "catalog" && access.allows("*")
            }),
            _ => false,
        };
        match self {
            Self::Open => Ok(()),
            Self::Token { .. } if granted => Ok(()),
            Self::Token { .. } => Err(self.challenge(caller, Some("registry:catalog:*"))),
        }
    }

    /// The repository that `name` means for this caller: itself, or what an alias stands for.
    pub(crate) fn require(
        &self,
        caller: &Caller,
        action: Action,
        name: &Repository,
    ) -> Result<Repository, RegistryError> {
        let refused = || {
            let scope = format!("repository:{name}:{}", action.scope());
            self.challenge(caller, Some(&scope))
        };
        if matches!(self, Self::Open) {
            return Ok(name.clone());
        }
        let Caller::Granted { access, .. } = caller else { return Err(refused()) };
        let granted = access.iter().find(|access| {
            access.kind == "repository"
                && access.name == name.as_str()
                && access.allows(action.as_str())
        });
        match granted.ok_or_else(refused)?.alias.as_deref() {
            None => Ok(name.clone()),
            // An alias is a second name to read by, never to write through.
            Some(alias) if action == Action::Pull => Ok(alias.parse()?),
            Some(_) => Err(refused()),
        }
    }

    fn challenge(&self, caller: &Caller, scope: Option<&str>) -> RegistryError {
        let Self::Token { realm, service, .. } = self else { return RegistryError::no_such_path() };
        let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
        if let Some(scope) = scope {
            challenge += &format!(",scope=\"{scope}\"");
        }
        match caller {
            Caller::Anonymous => {}
            Caller::Refused => challenge += ",error=\"invalid_token\"",
            Caller::Granted { .. } => challenge += ",error=\"insufficient_scope\"",
        }
        RegistryError::unauthorized(&challenge)
    }
}
