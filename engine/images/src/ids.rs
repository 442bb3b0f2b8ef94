//! What images and layers are called: an image by the digest of its configuration, a layer by the
//! digest of its uncompressed tar.

use std::fmt;
use std::str::FromStr;

use minke_common_model::digest::{Digest, DigestError};
use serde::{Deserialize, Serialize};

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The 64 hexadecimal digits: its name on disk.
            pub fn hex(&self) -> String {
                self.0.hex()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.parse().map(Self)
            }
        }
    };
}

digest_id! {
    /// An image: SHA-256 of its configuration, byte for byte as it was pulled or made.
    ImageId
}

digest_id! {
    /// A layer: SHA-256 of its uncompressed tar.
    DiffId
}

/// Docker's name for a stack of layers: what `Deleted:` lines of `docker rmi` show.
///
/// Returns nothing for an empty stack.
pub fn chain_id(layers: &[DiffId]) -> Option<Digest> {
    let (first, rest) = layers.split_first()?;
    Some(
        rest.iter().fold(first.0, |chain, layer| Digest::of(format!("{chain} {layer}").as_bytes())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_of_one_layer_is_the_layer() {
        let one = DiffId(Digest::of(b"one"));
        assert_eq!(chain_id(&[one]), Some(one.0));
        assert_eq!(chain_id(&[]), None);
    }

    #[test]
    fn chain_hashes_the_texts() {
        let (one, two) = (DiffId(Digest::of(b"one")), DiffId(Digest::of(b"two")));
        let expected = Digest::of(format!("{one} {two}").as_bytes());
        assert_eq!(chain_id(&[one, two]), Some(expected));
    }
}
