//! DNS messages, as far as a container's name service needs them. Pure.
//!
//! A query with one question is understood; everything else of it is left alone. Our answers repeat the
//! question and use name compression for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest message that is taken or given, bytes.
pub const MAX_MESSAGE: usize = 4096;
/// How long an answer of ours may be kept, seconds. Short: a container's successor has a new address.
const TTL: u32 = 5;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
const TYPE_ANY: u16 = 255;

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Answered, perhaps with nothing.
    NoError = 0,
    /// The question is broken.
    FormatError = 1,
    /// No server could be asked.
    ServerFailure = 2,
}

/// The question of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Given back in the answer.
    pub id: u16,
    /// Without the final dot; bytes that are not printable ASCII make a name unknown to us.
    pub name: String,
    /// Type: 1 for A, 28 for AAAA, 12 for PTR.
    pub kind: u16,
    /// Where the question ends in the message.
    end: usize,
}

/// Read the question of a query. `None`: not a query with one question, or broken.
pub fn question(message: &[u8]) -> Option<Question> {
    let u16_at = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let flags = u16_at(2)?;
    // A response, or another operation than a standard query.
    if message.len() > MAX_MESSAGE || flags & 0xf800 != 0 || u16_at(4)? != 1 {
        return None;
    }
    let (mut at, mut name) = (12, String::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Compression makes no sense in the first name of a message.
        if length > 63 || name.len() > 253 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in message.get(at..at + length)? {
            name.push(if byte.is_ascii_graphic() && *byte != b'.' {
                char::from(*byte)
            } else {
                '\u{fffd}'
            });
        }
        at += length;
    }
    let (kind, class) = (u16_at(at)?, u16_at(at + 2)?);
    (class == 1).then(|| Question {
        id: u16::from_be_bytes([message[0], message[1]]),
        name,
        kind,
        end: at + 4,
    })
}

impl Question {
    /// Whether this address answers it.
    fn wants(&self, address: &IpAddr) -> bool {
        match self.kind {
            TYPE_A => address.is_ipv4(),
            TYPE_AAAA => address.is_ipv6(),
            kind => kind == TYPE_ANY,
        }
    }

    /// The address whose name is asked for, if it is a reverse query.
    pub fn reverse_address(&self) -> Option<IpAddr> {
        if self.kind != TYPE_PTR {
            return None;
        }
        let lower = self.name.to_ascii_lowercase();
        if let Some(digits) = lower.strip_suffix(".ip6.arpa") {
            return reverse_ipv6(digits).map(IpAddr::V6);
        }
        let mut bytes = [0; 4];
        let mut parts = lower.strip_suffix(".in-addr.arpa")?.split('.');
        for byte in bytes.iter_mut().rev() {
            *byte = parts.next()?.parse().ok()?;
        }
        parts.next().is_none().then(|| Ipv4Addr::from(bytes).into())
    }

    fn header(&self, query: &[u8], code: Code, answers: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.end + usize::from(answers) * 16);
        out.extend_from_slice(&self.id.to_be_bytes());
        // Response, authoritative; recursion desired as asked, and available.
        out.extend_from_slice(&[0x84 | query[2] & 1, 0x80 | code as u8]);
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&answers.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&query[12..self.end]);
        out
    }

    fn record(out: &mut Vec<u8>, kind: u16, data: &[u8]) {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&TTL.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    }

    /// Answer with these addresses; none of them if another type was asked for: the name exists.
    pub fn answer(&self, query: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
        let given: Vec<_> = addresses.iter().filter(|address| self.wants(address)).collect();
        // What fits into 512 bytes with any name.
        let given = &given[..given.len().min(if self.kind == TYPE_A { 14 } else { 8 })];
        let mut out = self.header(query, Code::NoError, given.len() as u16);
        for address in given {
            match address {
                IpAddr::V4(address) => Self::record(&mut out, TYPE_A, &address.octets()),
                IpAddr::V6(address) => Self::record(&mut out, TYPE_AAAA, &address.octets()),
            }
        }
        out
    }

    /// Answer a reverse query with a name.
    pub fn answer_name(&self, query: &[u8], name: &str) -> Vec<u8> {
        let mut data = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty() && label.len() < 64) {
            data.push(label.len() as u8);
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        let mut out = self.header(query, Code::NoError, 1);
        Self::record(&mut out, TYPE_PTR, &data);
        out
    }

    /// Answer with an error.
    pub fn fail(&self, query: &[u8], code: Code) -> Vec<u8> {
        self.header(query, code, 0)
    }
}

/// The address that `f.e.…` (32 hex digits, the last one first) stands for.
fn reverse_ipv6(digits: &str) -> Option<Ipv6Addr> {
    let mut number = 0_u128;
    let mut count = 0;
    for digit in digits.rsplit('.') {
        let value = u8::from_str_radix(digit, 16).ok().filter(|_| digit.len() == 1)?;
        number = number.checked_shl(4)? | u128::from(value);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message
    }

    #[test]
    fn an_address_is_answered() {
        let message = query("web.net", TYPE_A);
        let question = question(&message).unwrap();
        assert_eq!((question.name.as_str(), question.id), ("web.net", 0x1234));
        let answer = question.answer(&message, &[IpAddr::from([10, 1, 2, 3])]);
        assert_eq!(answer[..12], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[message.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 1, 2, 3]);
    }

    #[test]
    fn another_type_of_a_known_name_is_empty_not_unknown() {
        let message = query("web", TYPE_AAAA);
        let answer = question(&message).unwrap().answer(&message, &[Ipv4Addr::LOCALHOST.into()]);
        assert_eq!((answer[3] & 15, answer[7]), (0, 0));
    }

    #[test]
    fn each_type_gets_its_own_addresses() {
        let both = [IpAddr::from([10, 1, 2, 3]), "fd00::5".parse().unwrap()];
        for (kind, last) in [(TYPE_A, [1, 2, 3]), (TYPE_AAAA, [0, 0, 5])] {
            let message = query("web", kind);
            let answer = question(&message).unwrap().answer(&message, &both);
            assert_eq!(answer[7], 1);
            assert!(answer.ends_with(&last), "{answer:?}");
        }
    }

    #[test]
    fn reverse_names_are_understood() {
        let message = query("4.3.2.10.in-addr.arpa", TYPE_PTR);
        let question = question(&message).unwrap();
        assert_eq!(question.reverse_address(), Some(IpAddr::from([10, 2, 3, 4])));
        let answer = question.answer_name(&message, "web.net");
        assert!(answer.ends_with(b"\x03web\x03net\x00"));
        let digits = format!("5.{}d.f.ip6.arpa", "0.".repeat(29));
        let message = query(&digits, TYPE_PTR);
        let address: IpAddr = "fd00::5".parse().unwrap();
        assert_eq!(question_of(&message).reverse_address(), Some(address));
    }

    fn question_of(message: &[u8]) -> Question {
        question(message).unwrap()
    }

    #[test]
    fn broken_messages_are_not_questions() {
        let whole = query("web", TYPE_A);
        for end in 0..whole.len() {
            assert_eq!(question(&whole[..end]), None);
        }
        let mut looping = whole.clone();
        looping[12] = 0xc0;
        assert_eq!(question(&looping), None);
    }
}
