//! Which Dockerfile a project means for a device type, and template variables in it.

/// What a template may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// CPU architecture slug, such as `aarch64`.
    pub architecture: String,
    /// Device type slug, such as `raspberrypi4-64`.
    pub device_type: String,
    /// The fleet's name.
    pub app_name: String,
    /// The release's commit.
    pub release: String,
    /// The service being built.
    pub service: String,
}

/// File names that a project may use, the one that wins first.
pub fn candidates(device_type: &str, architecture: &str) -> [String; 4] {
    [
        format!("Dockerfile.{device_type}"),
        format!("Dockerfile.{architecture}"),
        "Dockerfile.template".to_owned(),
        "Dockerfile".to_owned(),
    ]
}

/// Whether a Dockerfile of this name is a template. As with balena, every name but the plain one
/// may hold template variables.
pub fn is_template(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file != "Dockerfile" && file.starts_with("Dockerfile.")
}

/// The words a project type has in image rows.
pub fn project_type(name: &str) -> &'static str {
    let file = name.rsplit('/').next().unwrap_or(name);
    match file {
        "Dockerfile" => "Standard Dockerfile",
        "Dockerfile.template" => "Dockerfile.template",
        _ if file.starts_with("Dockerfile.") => "Architecture-specific Dockerfile",
        _ => "Standard Dockerfile",
    }
}

/// A template variable that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: unknown template variable `%%{name}%%`; expected one of {}", KNOWN.join(", "))]
pub struct UnknownVariable {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The name between the percent signs.
    pub name: String,
}

const KNOWN: [&str; 10] = [
    "BALENA_MACHINE_NAME",
    "BALENA_ARCH",
    "BALENA_APP_NAME",
    "BALENA_RELEASE_HASH",
    "BALENA_SERVICE_NAME",
    "RESIN_MACHINE_NAME",
    "RESIN_ARCH",
    "RESIN_APP_NAME",
    "RESIN_RELEASE_HASH",
    "RESIN_SERVICE_NAME",
];

impl Target {
    fn value(&self, name: &str) -> Option<&str> {
        let short = name.strip_prefix("BALENA_").or_else(|| name.strip_prefix("RESIN_"))?;
        match short {
            "MACHINE_NAME" => Some(&self.device_type),
            "ARCH" => Some(&self.architecture),
            "APP_NAME" => Some(&self.app_name),
            "RELEASE_HASH" => Some(&self.release),
            "SERVICE_NAME" => Some(&self.service),
            _ => None,
        }
    }

    /// Replaces every `%%BALENA_…%%` and `%%RESIN_…%%`. Other text between percent signs stays.
    pub fn fill(&self, text: &str) -> Result<String, UnknownVariable> {
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(found) = text[at..].find("%%") {
            let start = at + found;
            out.push_str(&text[at..start]);
            let body = &text[start + 2..];
            let end =
                body.find(|c: char| !c.is_ascii_uppercase() && c != '_' && !c.is_ascii_digit());
            let name = &body[..end.unwrap_or(body.len())];
            let closed = body[name.len()..].starts_with("%%");
            let ours = name.starts_with("BALENA_") || name.starts_with("RESIN_");
            if !closed || !ours {
                out.push_str("%%");
                at = start + 2;
                continue;
            }
            match self.value(name) {
                Some(value) => out.push_str(value),
                None => {
                    let line = text[..start].matches('\n').count() + 1;
                    let before = text[..start].rsplit('\n').next().unwrap_or("");
                    let column = before.chars().count() + 1;
                    return Err(UnknownVariable { line, column, name: name.to_owned() });
                }
            }
            at = start + 2 + name.len() + 2;
        }
        out.push_str(&text[at..]);
        Ok(out)
    }
}
