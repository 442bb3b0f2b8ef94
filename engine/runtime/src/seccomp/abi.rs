//! The ways in which programs call the kernel, and the numbers of the calls in each.

use syscalls::{aarch64, arm, x86, x86_64};

/// An ABI that a filter can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Abi {
    X86_64,
    X86,
    Aarch64,
    Arm,
}

impl Abi {
    /// The one of this program.
    pub(crate) const NATIVE: Abi =
        if cfg!(target_arch = "aarch64") { Abi::Aarch64 } else { Abi::X86_64 };

    /// By the name in profiles (`SCMP_ARCH_…`). `None`: no program of this machine has it.
    pub(crate) fn of_profile(name: &str) -> Option<Abi> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Abi::X86_64,
            "SCMP_ARCH_X86" => Abi::X86,
            "SCMP_ARCH_AARCH64" => Abi::Aarch64,
            "SCMP_ARCH_ARM" => Abi::Arm,
            _ => return None,
        })
    }

    /// Its name in profiles.
    pub(crate) fn profile_name(self) -> &'static str {
        match self {
            Abi::X86_64 => "SCMP_ARCH_X86_64",
            Abi::X86 => "SCMP_ARCH_X86",
            Abi::Aarch64 => "SCMP_ARCH_AARCH64",
            Abi::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// Its name in the conditions of rules.
    pub(crate) fn go_name(self) -> &'static str {
        match self {
            Abi::X86_64 => "amd64",
            Abi::X86 => "x86",
            Abi::Aarch64 => "arm64",
            Abi::Arm => "arm",
        }
    }

    /// The kernel's `AUDIT_ARCH_…`.
    pub(crate) fn audit(self) -> u32 {
        match self {
            Abi::X86_64 => 0xc000_003e,
            Abi::X86 => 0x4000_0003,
            Abi::Aarch64 => 0xc000_00b7,
            Abi::Arm => 0x4000_0028,
        }
    }

    /// The ABI of 32-bit programs on the same machine.
    pub(crate) fn narrow(self) -> Option<Abi> {
        match self {
            Abi::X86_64 => Some(Abi::X86),
            Abi::Aarch64 => Some(Abi::Arm),
            Abi::X86 | Abi::Arm => None,
        }
    }

    /// Number of a system call; `None` where this ABI lacks it.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Abi::X86_64 => name.parse::<x86_64::Sysno>().ok().map(|call| call.id()),
            Abi::X86 => name.parse::<x86::Sysno>().ok().map(|call| call.id()),
            Abi::Aarch64 => name.parse::<aarch64::Sysno>().ok().map(|call| call.id()),
            Abi::Arm => name.parse::<arm::Sysno>().ok().map(|call| call.id()),
        }?;
        u32::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_their_numbers_in_each_abi() {
        let of = |abi: Abi, name| abi.number(name);
        assert_eq!(of(Abi::X86_64, "read"), Some(0));
        assert_eq!(of(Abi::X86, "read"), Some(3));
        assert_eq!(of(Abi::Aarch64, "read"), Some(63));
        assert_eq!(of(Abi::X86_64, "clone3"), Some(435));
        assert_eq!(of(Abi::X86, "chown32"), Some(212));
        assert_eq!(of(Abi::X86_64, "chown32"), None);
        assert_eq!(of(Abi::Aarch64, "open"), None);
        assert_eq!(of(Abi::Arm, "fadvise64_64"), None, "it has a name of its own there");
        assert_eq!(of(Abi::Arm, "arm_fadvise64_64"), Some(270));
    }
}
