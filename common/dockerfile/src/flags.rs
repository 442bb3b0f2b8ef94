//! `--name[=value]` before an instruction's arguments.

use minke_common_model::{durations, sizes};

use crate::ast::{Mount, MountKind};
use crate::error::ParseError;
use crate::lines::Logical;
use crate::words;

/// One flag as written, with where it and its value begin.
pub(crate) struct Flag<'a> {
    pub offset: usize,
    pub name: &'a str,
    pub value: Option<String>,
}

/// Takes the flags off the front of `logical.text[from..]`; returns them and where the rest begins.
pub(crate) fn take<'a>(
    logical: &'a Logical,
    from: usize,
    escape: char,
    allowed: &[&str],
    keyword: &str,
) -> Result<(Vec<Flag<'a>>, usize), ParseError> {
    let mut flags = Vec::new();
    let mut rest = from;
    for (offset, word) in words::split(&logical.text[from..], escape) {
        let offset = from + offset;
        rest = offset;
        let Some(body) = word.strip_prefix("--") else { return Ok((flags, rest)) };
        rest = offset + word.len();
        if body.is_empty() {
            return Ok((flags, rest));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(unquote(value, escape))),
            None => (body, None),
        };
        if !allowed.contains(&name) {
            return Err(unknown(logical, offset, name, allowed, keyword));
        }
        flags.push(Flag { offset, name, value });
    }
    Ok((flags, rest))
}

fn unknown(
    logical: &Logical,
    offset: usize,
    name: &str,
    allowed: &[&str],
    keyword: &str,
) -> ParseError {
    let list: Vec<String> = allowed.iter().map(|a| format!("--{a}")).collect();
    let message = match list.is_empty() {
        true => format!("{keyword} takes no flags, but `--{name}` is given"),
        false => format!("unknown flag `--{name}` for {keyword}; expected {}", list.join(", ")),
    };
    let error = logical.error(offset, message);
    match words::closest(name, allowed) {
        Some(near) => error.hint(format!("did you mean `--{near}`?")),
        None => error,
    }
}

/// Removes quotes and escapes, leaving variables alone.
pub(crate) fn unquote(word: &str, escape: char) -> String {
    if !word.contains(['"', '\'']) {
        return word.to_owned();
    }
    let mut out = String::new();
    let mut quote = None;
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            Some('"') if c == escape && chars.peek() == Some(&'"') => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

impl Flag<'_> {
    /// The value, which must be there.
    pub fn required(&self, logical: &Logical) -> Result<String, ParseError> {
        match &self.value {
            Some(value) if !value.is_empty() => Ok(value.clone()),
            _ => Err(logical.error(
                self.offset,
                format!("`--{}` has no value; expected `--{}=…`", self.name, self.name),
            )),
        }
    }

    /// A switch: absent value is true.
    pub fn switch(&self, logical: &Logical) -> Result<bool, ParseError> {
        match self.value.as_deref() {
            None | Some("true") | Some("1") => Ok(true),
            Some("false") | Some("0") => Ok(false),
            Some(other) => Err(logical
                .error(self.offset, format!("`--{}={other}`; expected true or false", self.name))),
        }
    }

    /// A Go duration such as `1m30s`, in nanoseconds.
    pub fn duration(&self, logical: &Logical) -> Result<u64, ParseError> {
        let text = self.required(logical)?;
        durations::nanoseconds(&text).map(i64::unsigned_abs).ok_or_else(|| {
            logical.error(
                self.offset,
                format!(
                    "`--{}={text}` is not a duration; expected a number with a unit, such as 30s",
                    self.name
                ),
            )
        })
    }
}

/// Reads the value of `RUN --mount=`.
pub(crate) fn mount(logical: &Logical, flag: &Flag<'_>) -> Result<Mount, ParseError> {
    let text = flag.required(logical)?;
    let mut mount = Mount::default();
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value.trim().to_owned())),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        mount_field(&mut mount, &key, value).map_err(|m| logical.error(flag.offset, m))?;
    }
    check_mount(&mount).map_err(|m| logical.error(flag.offset, m))?;
    Ok(mount)
}

fn mount_field(mount: &mut Mount, key: &str, value: Option<String>) -> Result<(), String> {
    let switch = |v: &Option<String>| match v.as_deref() {
        None | Some("true") | Some("1") => Ok(true),
        Some("false") | Some("0") => Ok(false),
        Some(v) => Err(format!("`{key}={v}` in --mount; expected true or false")),
    };
    match key {
        "readonly" | "ro" => mount.read_only = Some(switch(&value)?),
        "readwrite" | "rw" => mount.read_only = Some(!switch(&value)?),
        "required" => mount.required = switch(&value)?,
        _ => {
            let value = value
                .filter(|v| !v.is_empty())
                .ok_or_else(|| format!("`{key}` in --mount has no value; expected `{key}=…`"))?;
            mount_value(mount, key, value)?;
        }
    }
    Ok(())
}

fn mount_value(mount: &mut Mount, key: &str, value: String) -> Result<(), String> {
    let number = |radix: u32| {
        u32::from_str_radix(&value, radix)
            .map_err(|_| format!("`{key}={value}` in --mount; expected a number"))
    };
    match key {
        "type" => {
            mount.kind = match value.as_str() {
                "bind" => MountKind::Bind,
                "cache" => MountKind::Cache,
                "tmpfs" => MountKind::Tmpfs,
                "secret" => MountKind::Secret,
                "ssh" => MountKind::Ssh,
                other => {
                    return Err(format!(
                        "unknown mount type `{other}`; expected bind, cache, tmpfs, secret or ssh"
                    ));
                }
            }
        }
        "target" | "dst" | "destination" => mount.target = Some(value),
        "source" | "src" => mount.source = Some(value),
        "from" => mount.from = Some(value),
        "id" => mount.id = Some(value),
        "env" => mount.env = Some(value),
        "sharing" => mount.sharing = Some(value),
        "mode" => mount.mode = Some(number(8)?),
        "uid" => mount.uid = Some(number(10)?),
        "gid" => mount.gid = Some(number(10)?),
        "size" => {
            mount.size = Some(sizes::bytes(&value).ok_or_else(|| {
                format!("`size={value}` in --mount; expected bytes, or a number with k, m or g")
            })?)
        }
        other => {
            return Err(format!(
                "unknown key `{other}` in --mount; expected type, target, source, from, id, env, \
                 sharing, mode, uid, gid, size, required, readonly or readwrite"
            ));
        }
    }
    Ok(())
}

fn check_mount(mount: &Mount) -> Result<(), String> {
    let needs_target = matches!(mount.kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs);
    if needs_target && mount.target.is_none() {
        return Err("--mount has no target; expected `target=/path`".into());
    }
    if let Some(sharing) = &mount.sharing
        && !["shared", "private", "locked"].contains(&sharing.as_str())
    {
        return Err(format!("`sharing={sharing}`; expected shared, private or locked"));
    }
    Ok(())
}
