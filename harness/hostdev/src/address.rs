use std::{fmt, str::FromStr};

/// A PCI function's address: domain, bus, device, function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// 16 bits, more behind some host bridges (VMD).
    domain: u32,
    bus: u8,
    /// 0 to 31.
    device: u8,
    /// 0 to 7.
    function: u8,
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid PCI address `{0}`: expected domain, bus, device and function in hexadecimal, as in \
     0000:03:00.0 (the domain may be left away: 03:00.0)"
)]
pub struct InvalidAddress(pub String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        parse(text).ok_or_else(|| InvalidAddress(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Address> {
    let (slot, function) = text.rsplit_once('.')?;
    let mut fields = slot.rsplit(':');
    let device = number(fields.next()?, 1..=2)?;
    let bus = number(fields.next()?, 1..=2)?;
    let domain = fields.next().map_or(Some(0), |domain| number(domain, 1..=8))?;
    let function = number(function, 1..=1)?;
    if fields.next().is_some() || device > 0x1f || function > 7 {
        return None;
    }
    Some(Address { domain, bus: bus as u8, device: device as u8, function: function as u8 })
}

fn number(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    // Without this a sign would be taken for part of a number.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_plain || !digits.contains(&text.len()) {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, address: Option<&str>) {
        let parsed = text.parse::<Address>().ok().map(|address| address.to_string());
        assert_eq!(parsed.as_deref(), address, "{text}");
    }

    #[test]
    fn reads_and_writes_addresses_as_the_kernel_does() {
        check("0000:03:00.0", Some("0000:03:00.0"));
        check("03:00.0", Some("0000:03:00.0"));
        check("3:0.7", Some("0000:03:00.7"));
        check("10000:E1:1f.7", Some("10000:e1:1f.7"));
    }

    #[test]
    fn refuses_invalid_addresses() {
        for text in [
            "",
            "nvme0",
            "03:00",
            "03:00.8",
            "03:20.0",
            "0:0:3:0.0",
            "+3:00.0",
            "03:00.0 ",
            ":0.0",
            "100:0.0",
        ] {
            check(text, None);
        }
        let error = "03:00".parse::<Address>().unwrap_err().to_string();
        assert!(error.contains("`03:00`") && error.contains("as in 0000:03:00.0"), "{error}");
    }
}
