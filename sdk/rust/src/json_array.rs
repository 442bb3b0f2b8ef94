//! A JSON array that is read while it is written: the builder's answer.

/// Cuts the elements out of a JSON array as its bytes come.
#[derive(Debug, Default)]
pub struct Elements {
    held: Vec<u8>,
    /// How much of `held` has been looked at.
    seen: usize,
    /// Where the element that is being read begins.
    begun: Option<usize>,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

/// The largest element, in bytes.
pub const MAX_ELEMENT: usize = 4 << 20;

/// An element that is larger than [`MAX_ELEMENT`].
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Elements {
    /// Takes the next bytes and returns the objects that are now whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLarge> {
        self.held.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(&byte) = self.held.get(self.seen) {
            self.seen += 1;
            if self.in_string {
                self.step_in_string(byte);
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' => {
                    self.begun = self.begun.or(Some(self.seen - 1));
                    self.depth += 1;
                }
                b'}' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        whole.extend(
                            self.begun.take().map(|begin| self.held[begin..self.seen].to_vec()),
                        );
                    }
                }
                _ => {}
            }
        }
        // What is left of the buffer is the element that is not whole yet.
        let keep = self.begun.unwrap_or(self.seen);
        self.held.drain(..keep);
        self.seen -= keep;
        self.begun = self.begun.map(|_| 0);
        if self.held.len() > MAX_ELEMENT { Err(TooLarge) } else { Ok(whole) }
    }

    fn step_in_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn too_large_an_element_is_an_error() {
        let mut elements = Elements::default();
        elements.push(b"[{\"message\":\"").unwrap();
        let piece = vec![b'x'; MAX_ELEMENT];
        assert_eq!(elements.push(&piece), Err(TooLarge));
    }

    proptest! {
        #[test]
        fn every_way_to_cut_the_stream_gives_the_same_elements(
            messages in proptest::collection::vec(".*", 0..8),
            cuts in proptest::collection::vec(1usize..20, 1..50),
        ) {
            let array: Vec<Value> =
                messages.iter().map(|text| json!({ "message": text, "of": { "text": text } })).collect();
            let bytes = serde_json::to_vec(&array).unwrap();
            let mut elements = Elements::default();
            let (mut found, mut rest, mut cuts) = (Vec::new(), bytes.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(*cuts.next().unwrap().min(&rest.len()));
                found.extend(elements.push(chunk).unwrap());
                rest = after;
            }
            let found: Vec<Value> =
                found.iter().map(|element| serde_json::from_slice(element).unwrap()).collect();
            prop_assert_eq!(found, array);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Elements::default().push(&bytes);
        }
    }
}
