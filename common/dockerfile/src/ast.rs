//! The tree. Words are kept as written (quotes, escapes and variables included) unless they come
//! from a JSON array, which has neither.

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First line, from 1.
    pub line: usize,
    /// Column of the first character, from 1.
    pub column: usize,
    /// Last line, continuations and heredocs included.
    pub end_line: usize,
}

/// Something legal that probably is not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What, in a sentence.
    pub message: String,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character: `\` or a backtick.
    pub escape: char,
    /// `ARG`s before the first `FROM`: visible in `FROM` lines only.
    pub global_args: Vec<Arg>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// Legal, but suspicious.
    pub warnings: Vec<Warning>,
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The `FROM` line.
    pub from: From,
    /// Where the `FROM` line stands.
    pub span: Span,
    /// Everything up to the next `FROM`.
    pub nodes: Vec<Node>,
}

/// `FROM [--platform=P] image [AS name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Platform, unexpanded.
    pub platform: Option<String>,
    /// An image, an earlier stage's name, or `scratch`; unexpanded.
    pub image: String,
    /// Lower-case name of this stage.
    pub name: Option<String>,
}

/// An instruction with its place and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// The text as one line, continuations joined, without heredoc bodies.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// `NAME[=default]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// The variable.
    pub name: String,
    /// Its default, unexpanded.
    pub default: Option<String>,
}

/// `key=value`, both unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Given to the stage's shell as it is.
    Shell(String),
    /// Executed without a shell.
    Exec(Vec<String>),
}

/// A heredoc and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// `<<-`: leading tabs are not part of the body.
    pub strip_tabs: bool,
    /// The word was not quoted: variables in the body are expanded.
    pub expand: bool,
    /// File descriptor digits before `<<`, as written.
    pub descriptor: String,
    /// Body as it stands in the file, each line with its newline.
    pub body: String,
}

impl Heredoc {
    /// The body with leading tabs removed where `<<-` asks for it.
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|l| l.trim_start_matches('\t')).collect()
    }
}

/// Where `COPY` and `ADD` take something from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, pattern or (`ADD`) URL, unexpanded.
    Word(String),
    /// A file written in the Dockerfile itself.
    Inline(Heredoc),
}

/// Flags of `COPY` and `ADD`, unexpanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyFlags {
    /// `--from`: a stage's name or number, or an image.
    pub from: Option<String>,
    /// `--chown=user[:group]`
    pub chown: Option<String>,
    /// `--chmod`: octal.
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, any number.
    pub exclude: Vec<String>,
    /// `--checksum`, `ADD` only.
    pub checksum: Option<String>,
    /// `--keep-git-dir`, `ADD` only.
    pub keep_git_dir: bool,
    /// `--unpack`, `ADD` only: whether archives are unpacked; `None`: those of the context are, those of
    /// the network are not.
    pub unpack: Option<bool>,
}

/// The operands of `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// Flags.
    pub flags: CopyFlags,
    /// At least one.
    pub sources: Vec<Source>,
    /// Where to, unexpanded.
    pub dest: String,
    /// Written as a JSON array: the words hold no quotes.
    pub json: bool,
}

/// `RUN --network=`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// The build's own.
    #[default]
    Default,
    /// None at all.
    None,
    /// The host's.
    Host,
}

/// What a `RUN --mount` mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountKind {
    /// Part of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory kept between builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret file.
    Secret,
    /// An ssh agent socket.
    Ssh,
}

/// One `RUN --mount=…`; strings unexpanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// `type`
    pub kind: MountKind,
    /// `target`, `dst` or `destination`
    pub target: Option<String>,
    /// `source` or `src`
    pub source: Option<String>,
    /// `from`: stage or image.
    pub from: Option<String>,
    /// `id` of a cache, secret or ssh mount.
    pub id: Option<String>,
    /// `readonly`/`ro` true, `readwrite`/`rw` false.
    pub read_only: Option<bool>,
    /// `required` of a secret.
    pub required: bool,
    /// `mode`, octal.
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
    /// `size` of a tmpfs, in bytes.
    pub size: Option<u64>,
    /// `sharing` of a cache.
    pub sharing: Option<String>,
    /// `env` of a secret.
    pub env: Option<String>,
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `--mount`, any number.
    pub mounts: Vec<Mount>,
    /// `--network`
    pub network: RunNetwork,
    /// `--security=insecure`
    pub insecure: bool,
    /// What to run.
    pub command: Command,
    /// Heredocs in the command.
    pub heredocs: Vec<Heredoc>,
}

impl Run {
    /// A command that is one heredoc and nothing else is a script of its own: its body.
    pub fn script(&self) -> Option<String> {
        let (Command::Shell(text), [only]) = (&self.command, self.heredocs.as_slice()) else {
            return None;
        };
        let word = text.trim();
        let rest = word.strip_prefix("<<")?;
        (only.descriptor.is_empty() && !rest.contains(char::is_whitespace)).then(|| only.content())
    }

    /// The text for the shell, heredoc bodies included.
    pub fn shell_text(&self) -> Option<String> {
        let Command::Shell(text) = &self.command else { return None };
        if self.heredocs.is_empty() {
            return Some(text.clone());
        }
        if let Some(script) = self.script() {
            return Some(script);
        }
        let mut out = text.clone();
        for heredoc in &self.heredocs {
            out.push('\n');
            out.push_str(&heredoc.body);
            out.push_str(&heredoc.name);
        }
        out.push('\n');
        Some(out)
    }
}

/// `HEALTHCHECK`; durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`
    None,
    /// `HEALTHCHECK [options] CMD …`
    Cmd {
        /// What to run.
        command: Command,
        /// `--interval`
        interval: Option<u64>,
        /// `--timeout`
        timeout: Option<u64>,
        /// `--start-period`
        start_period: Option<u64>,
        /// `--start-interval`
        start_interval: Option<u64>,
        /// `--retries`
        retries: Option<u32>,
    },
}

/// Everything that can stand in a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Vec<Arg>),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(Add),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Vec<Pair>),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<Pair>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the text after the keyword, and what it says.
    Onbuild(String, Box<Instruction>),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    Stopsignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`: words, and whether they come from a JSON array.
    Volume(Vec<String>, bool),
    /// `WORKDIR`
    Workdir(String),
}

impl Instruction {
    /// The keyword, upper case.
    pub fn keyword(&self) -> &'static str {
        match self {
            Instruction::Add(_) => "ADD",
            Instruction::Arg(_) => "ARG",
            Instruction::Cmd(_) => "CMD",
            Instruction::Copy(_) => "COPY",
            Instruction::Entrypoint(_) => "ENTRYPOINT",
            Instruction::Env(_) => "ENV",
            Instruction::Expose(_) => "EXPOSE",
            Instruction::Healthcheck(_) => "HEALTHCHECK",
            Instruction::Label(_) => "LABEL",
            Instruction::Maintainer(_) => "MAINTAINER",
            Instruction::Onbuild(..) => "ONBUILD",
            Instruction::Run(_) => "RUN",
            Instruction::Shell(_) => "SHELL",
            Instruction::Stopsignal(_) => "STOPSIGNAL",
            Instruction::User(_) => "USER",
            Instruction::Volume(..) => "VOLUME",
            Instruction::Workdir(_) => "WORKDIR",
        }
    }
}
