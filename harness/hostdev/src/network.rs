//! Network interfaces below a PCI device, and what would be cut off with them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use crate::{
    kernel_files::{KernelFiles, names},
    process,
};

/// The network interfaces below a PCI device, and what needs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Network {
    /// The interfaces themselves.
    pub(crate) interfaces: BTreeSet<String>,
    /// An interface on the device or above it that the default route goes over.
    pub(crate) default_route: Option<String>,
    /// One that the SSH connection goes over by which this process was started.
    pub(crate) session: Option<String>,
}

pub(crate) fn below(files: &KernelFiles, device: &Path) -> Network {
    let interfaces = inside(files, device);
    if interfaces.is_empty() {
        return Network::default();
    }
    let stack = with_uppers(files, &interfaces);
    let routes = routes(files);
    let default = routes.iter().find(|route| route.bits == 0 && stack.contains(&route.interface));
    Network {
        default_route: default.map(|route| route.interface.clone()),
        session: session(files, &routes).into_iter().find(|name| stack.contains(name)),
        interfaces,
    }
}

fn inside(files: &KernelFiles, device: &Path) -> BTreeSet<String> {
    let class = files.path("sys/class/net");
    let below =
        |name: &String| class.join(name).canonicalize().is_ok_and(|p| p.starts_with(device));
    names(&class).into_iter().filter(below).collect()
}

/// The interfaces, and the bonds, bridges, VLANs and so on above them.
fn with_uppers(files: &KernelFiles, interfaces: &BTreeSet<String>) -> BTreeSet<String> {
    let class = files.path("sys/class/net");
    let mut stack = interfaces.clone();
    let mut open: Vec<_> = interfaces.iter().cloned().collect();
    while let Some(name) = open.pop() {
        let directory = class.join(name);
        let uppers = names(&directory)
            .into_iter()
            .filter_map(|entry| entry.strip_prefix("upper_").map(str::to_owned));
        let master = crate::kernel_files::link_name(&directory.join("master"));
        for upper in uppers.chain(master) {
            if stack.insert(upper.clone()) {
                open.push(upper);
            }
        }
    }
    stack
}

/// The interfaces that this process' SSH connection goes over: the one with the host's address of it,
/// and the one over which answers go.
fn session(files: &KernelFiles, routes: &[Route]) -> Vec<String> {
    let Some((client, host)) = process::ssh_connection(files) else { return Vec::new() };
    let own = match host {
        IpAddr::V6(address) => owner_v6(files, address),
        // The kernel's files don't say whose an IPv4 address is; but where an interface has one,
        // there is a route to the network that it is in.
        IpAddr::V4(_) => best(routes.iter().filter(|route| !route.gateway), host),
    };
    own.into_iter().chain(best(routes.iter(), client)).collect()
}

/// A line of `if_inet6`: address, index, length of the prefix, scope, flags, interface.
fn owner_v6(files: &KernelFiles, address: Ipv6Addr) -> Option<String> {
    let table = files.text("proc/net/if_inet6").unwrap_or_default();
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        if v6(fields.next()?)? != address {
            return None;
        }
        fields.nth(4).map(str::to_owned)
    })
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    interface: String,
    to: IpAddr,
    /// Length of the prefix.
    bits: u32,
    gateway: bool,
}

/// `RTF_UP`, `RTF_GATEWAY` and `RTF_REJECT` of linux/route.h.
const UP: u64 = 0x1;
const GATEWAY: u64 = 0x2;
const REJECT: u64 = 0x200;

fn routes(files: &KernelFiles) -> Vec<Route> {
    let v4 = files.text("proc/net/route").unwrap_or_default();
    let v6 = files.text("proc/net/ipv6_route").unwrap_or_default();
    v4.lines().skip(1).filter_map(route_v4).chain(v6.lines().filter_map(route_v6)).collect()
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`, addresses as the numbers that they
/// are in memory.
fn route_v4(line: &str) -> Option<Route> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
    let flags = u64::from(number(3)?);
    if flags & UP == 0 || flags & REJECT != 0 {
        return None;
    }
    Some(Route {
        interface: (*fields.first()?).to_owned(),
        to: IpAddr::V4(Ipv4Addr::from(number(1)?.to_ne_bytes())),
        bits: number(7)?.count_ones(),
        gateway: flags & GATEWAY != 0,
    })
}

/// Destination, its prefix, source, its prefix, next hop, metric, counts, flags, interface.
fn route_v6(line: &str) -> Option<Route> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let flags = u64::from_str_radix(fields.get(8)?, 16).ok()?;
    let interface = *fields.get(9)?;
    // Without any other route the kernel has one to nowhere over the loopback interface.
    if flags & UP == 0 || flags & REJECT != 0 || interface == "lo" {
        return None;
    }
    Some(Route {
        interface: interface.to_owned(),
        to: IpAddr::V6(v6(fields.first()?)?),
        bits: u32::from_str_radix(fields.get(1)?, 16).ok()?,
        gateway: flags & GATEWAY != 0,
    })
}

fn v6(digits: &str) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32)?))
}

/// The interface of the most special of these routes to an address.
fn best<'a>(routes: impl Iterator<Item = &'a Route>, address: IpAddr) -> Option<String> {
    let fitting = routes.filter(|route| route.fits(address));
    fitting.max_by_key(|route| route.bits).map(|route| route.interface.clone())
}

impl Route {
    fn fits(&self, address: IpAddr) -> bool {
        match (self.to, address) {
            (IpAddr::V4(to), IpAddr::V4(address)) => {
                let differ = u32::from(to) ^ u32::from(address);
                differ.checked_shr(32 - self.bits.min(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(to), IpAddr::V6(address)) => {
                let differ = u128::from(to) ^ u128::from(address);
                differ.checked_shr(128 - self.bits.min(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_the_most_specific_route() {
        let lines = [
            "eth0 00000000 010200C0 0003 0 0 100 00000000 0 0 0",
            "eth1 000200C0 00000000 0001 0 0 100 00FFFFFF 0 0 0",
            "eth2 070200C0 00000000 0001 0 0 100 FFFFFFFF 0 0 0",
            "eth3 000300C0 00000000 0201 0 0 100 00FFFFFF 0 0 0",
        ];
        let routes: Vec<_> = lines.into_iter().filter_map(route_v4).collect();
        assert_eq!(routes.len(), 3);
        let check = |address: &str, interface: &str| {
            assert_eq!(best(routes.iter(), address.parse().unwrap()).as_deref(), Some(interface));
        };
        check("192.0.2.1", "eth1");
        check("192.0.2.7", "eth2");
        check("192.0.3.1", "eth0");
        check("198.51.100.1", "eth0");
        assert_eq!(best(routes.iter(), "2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn parses_ipv6_routes() {
        let line = "20010db8000000000000000000000000 20 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0";
        let route = route_v6(line).unwrap();
        assert!(route.fits("2001:db8::5".parse().unwrap()));
        assert!(!route.fits("2001:db9::5".parse().unwrap()));
        assert_eq!(route_v6(&line.replace("00000001 eth0", "00200200 lo")), None);
    }
}
