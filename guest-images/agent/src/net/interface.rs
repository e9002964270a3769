//! Brings network interfaces up and takes them down, by rtnetlink.

use std::{fs, os::fd::OwnedFd, time::Instant};

use anyhow::{Context, Result, bail};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink,
    recv, send, socket_with,
};

use crate::device::{LIMIT, wait_until};

// Of <linux/netlink.h>, <linux/rtnetlink.h> and <linux/if.h>.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const RTMGRP_LINK: u32 = 1;
const IFF_UP: u32 = 1;
/// `IFF_RUNNING | IFF_LOWER_UP`. The kernel announces both after the queues are started; a frame
/// that is sent before is dropped without an error.
const READY: u32 = 1 << 6 | 1 << 16;
/// `struct nlmsghdr` and `struct ifinfomsg`, 16 bytes each.
const MESSAGE: usize = 32;

/// A network interface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface {
    /// Its number.
    pub(crate) index: u32,
    /// Its hardware address.
    pub(crate) address: [u8; 6],
}

impl Interface {
    fn named(name: &str) -> Result<Self> {
        let read = |file| {
            let path = format!("/sys/class/net/{name}/{file}");
            fs::read_to_string(&path).with_context(|| format!("can't read {path}"))
        };
        let index = read("ifindex")?.trim().parse()?;
        let text = read("address")?;
        let bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16));
        let bytes = bytes.collect::<Result<Vec<_>, _>>()?;
        let Ok(address) = bytes.try_into() else { bail!("{name} is no Ethernet: {text}") };
        Ok(Self { index, address })
    }
}

/// Brings two interfaces up and waits until frames can pass.
///
/// # Errors
/// Where one is not there or has no carrier in time.
pub(crate) fn bring_up(names: [&str; 2]) -> Result<[Interface; 2]> {
    let interfaces = [Interface::named(names[0])?, Interface::named(names[1])?];
    let socket = open().context("can't talk to the kernel about links")?;
    for Interface { index, .. } in interfaces {
        send(&socket, &message(RTM_NEWLINK, index, IFF_UP, IFF_UP), SendFlags::empty())?;
        // What it is by now: where it was up before, there is nothing to announce.
        send(&socket, &message(RTM_GETLINK, index, 0, 0), SendFlags::empty())?;
    }
    let deadline = Instant::now() + LIMIT;
    let mut ready = [false; 2];
    let mut buffer = vec![0; 32 << 10];
    while ready != [true; 2] {
        if !wait_until(&socket, deadline)? {
            let without = names.iter().zip(ready).filter(|(_, ready)| !ready);
            let without: Vec<_> = without.map(|(name, _)| *name).collect();
            bail!("no carrier on {} after {} s", without.join(" and "), LIMIT.as_secs());
        }
        let (count, _) = recv(&socket, &mut buffer, RecvFlags::empty())?;
        for event in parse(&buffer[..count]) {
            match event {
                LinkEvent::Link { index, flags } => {
                    for (interface, ready) in interfaces.iter().zip(&mut ready) {
                        if interface.index == index {
                            *ready = flags & READY == READY;
                        }
                    }
                }
                LinkEvent::Refused(code) => {
                    let error = std::io::Error::from_raw_os_error(code);
                    return Err(error).context(format!("can't bring {} up", names.join(" and ")));
                }
            }
        }
    }
    Ok(interfaces)
}

/// Takes interfaces down again. The kernel's own frames (neighbour discovery, multicast reports)
/// end with that: outside of a workload nothing is mapped or unmapped.
///
/// # Errors
/// Where the kernel refuses.
pub(crate) fn take_down(interfaces: [Interface; 2]) -> Result<()> {
    let socket = open().context("can't talk to the kernel about links")?;
    for Interface { index, .. } in interfaces {
        send(&socket, &message(RTM_NEWLINK, index, 0, IFF_UP), SendFlags::empty())?;
        send(&socket, &message(RTM_GETLINK, index, 0, 0), SendFlags::empty())?;
    }
    let deadline = Instant::now() + LIMIT;
    let mut down = [false; 2];
    let mut buffer = vec![0; 32 << 10];
    while down != [true; 2] {
        if !wait_until(&socket, deadline)? {
            bail!("an interface is still up after {} s", LIMIT.as_secs());
        }
        let (count, _) = recv(&socket, &mut buffer, RecvFlags::empty())?;
        for event in parse(&buffer[..count]) {
            match event {
                LinkEvent::Link { index, flags } => {
                    for (interface, down) in interfaces.iter().zip(&mut down) {
                        if interface.index == index {
                            *down = flags & IFF_UP == 0;
                        }
                    }
                }
                LinkEvent::Refused(code) => {
                    let error = std::io::Error::from_raw_os_error(code);
                    return Err(error).context("can't take an interface down");
                }
            }
        }
    }
    Ok(())
}

fn open() -> rustix::io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    // NETLINK_ROUTE is protocol 0, which rustix calls none.
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK))?;
    Ok(socket)
}

/// A request about one link: `flags`, of those in `change`.
fn message(kind: u16, index: u32, flags: u32, change: u32) -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    message[0..4].copy_from_slice(&(MESSAGE as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message[20..24].copy_from_slice(&index.to_ne_bytes());
    message[24..28].copy_from_slice(&flags.to_ne_bytes());
    message[28..32].copy_from_slice(&change.to_ne_bytes());
    message
}

#[derive(Debug, PartialEq, Eq)]
enum LinkEvent {
    Link {
        index: u32,
        flags: u32,
    },
    /// With an errno; without `NLM_F_ACK` the kernel does not report success.
    Refused(i32),
}

fn parse(mut messages: &[u8]) -> Vec<LinkEvent> {
    let word = |bytes: &[u8], at| {
        let bytes: Option<&[u8; 4]> = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.map(|bytes| u32::from_ne_bytes(*bytes))
    };
    let mut events = Vec::new();
    while let Some(length) = word(messages, 0).map(|length| length as usize)
        && (16..=messages.len()).contains(&length)
    {
        let message = &messages[..length];
        match u16::from_ne_bytes([message[4], message[5]]) {
            RTM_NEWLINK => events.extend(
                word(message, 20)
                    .zip(word(message, 24))
                    .map(|(index, flags)| LinkEvent::Link { index, flags }),
            ),
            NLMSG_ERROR => {
                events.extend(word(message, 16).map(|code| LinkEvent::Refused(-(code as i32))))
            }
            _ => {}
        }
        messages = &messages[length.next_multiple_of(4).min(messages.len())..];
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_link_events_and_skips_damaged_ones() {
        let mut bytes = message(RTM_NEWLINK, 2, READY | IFF_UP, IFF_UP).to_vec();
        bytes.extend(message(17, 3, 0, 0));
        bytes.extend(message(RTM_NEWLINK, 3, IFF_UP, IFF_UP));
        let events = [
            LinkEvent::Link { index: 2, flags: READY | IFF_UP },
            LinkEvent::Link { index: 3, flags: IFF_UP },
        ];
        assert_eq!(parse(&bytes), events);
        assert_eq!(parse(&bytes[..95]), events[..1]);
        assert_eq!(parse(&[]), []);
        assert_eq!(parse(&[0; 64]), []);
    }
}
