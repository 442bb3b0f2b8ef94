//! Records of a tar's extended headers (pax): `length key=value\n`, read by their length because values
//! are binary.

/// What is wrong with a record.
pub type Wrong = &'static str;

/// A key and its value.
pub type Record<'a> = (&'a [u8], &'a [u8]);

/// The keys and values in the body of an extended header. NULs at its end are padding; nothing comes
/// after an error.
pub fn records(body: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Wrong>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.iter().all(|byte| *byte == 0) {
            return None;
        }
        let (record, after) = match split(rest) {
            Ok((record, after)) => (Ok(record), after),
            Err(wrong) => (Err(wrong), &[][..]),
        };
        rest = after;
        Some(record)
    })
}

/// The first record, and what follows it.
fn split(body: &[u8]) -> Result<(Record<'_>, &[u8]), Wrong> {
    let space = body.iter().position(|byte| *byte == b' ');
    let space = space.ok_or("an extended record has no length")?;
    let length = number(&body[..space])
        .and_then(|length| usize::try_from(length).ok())
        .filter(|length| *length > space + 1 && *length <= body.len())
        .ok_or("an extended record has a wrong length")?;
    let (record, after) = body.split_at(length);
    let record = record[space + 1..]
        .strip_suffix(b"\n")
        .ok_or("an extended record does not end with a newline")?;
    let equals = record.iter().position(|byte| *byte == b'=');
    let equals = equals.ok_or("an extended record has no `=`")?;
    Ok(((&record[..equals], &record[equals + 1..]), after))
}

/// A decimal number without sign.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<Vec<Record<'_>>, Wrong> {
        records(body).collect()
    }

    #[test]
    fn values_may_hold_anything() {
        let body = b"11 path=a=\n12 link=b\n\0\n\0\0";
        assert_eq!(read(body), Ok(vec![(&b"path"[..], &b"a="[..]), (b"link", b"b\n\0")]));
        assert_eq!(read(b""), Ok(vec![]));
    }

    #[test]
    fn broken_records_are_errors_and_the_last_thing_said() {
        for (body, wrong) in [
            (&b"9 a=b\n"[..], "an extended record has a wrong length"),
            (b"a=b\n", "an extended record has no length"),
            (b"+6 a=b\n", "an extended record has a wrong length"),
            (b"6 abc\n", "an extended record has no `=`"),
            (b"5 a=b", "an extended record does not end with a newline"),
            (b"99999999999999999999 a=b\n", "an extended record has a wrong length"),
        ] {
            let mut records = records(body);
            assert_eq!(records.next(), Some(Err(wrong)), "{body:?}");
            assert_eq!(records.next(), None);
        }
    }
}
