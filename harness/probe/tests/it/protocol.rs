//! What QEMU asks of any device, and what comes back.

use std::os::fd::AsFd;

use dmarig_model::{
    coherence::Mapping,
    probe::{Reply, Request, Settings},
};
use dmarig_probe::protocol::command;

use crate::client::{Client, map_body, u32s, u64s};

const EINVAL: u32 = 22;
const EEXIST: u32 = 17;
const ENOSYS: u32 = 38;

fn client() -> Client {
    Client::new(Settings::default())
}

#[test]
fn describes_regions_and_interrupts() {
    let mut client = client();
    let info = client.call(command::DEVICE_INFO, &u32s(&[16, 0, 0, 0]), &[]).unwrap();
    assert_eq!(info, u32s(&[16, 3, 9, 5]));
    let mut region = |index| {
        let body = u32s(&[32, 0, index, 0, 0, 0, 0, 0]);
        client.call(command::REGION_INFO, &body, &[])
    };
    assert_eq!(region(0).unwrap(), u32s(&[32, 3, 0, 0, 0x4000, 0, 0, 0]));
    assert_eq!(region(1).unwrap(), u32s(&[32, 0, 1, 0, 0, 0, 0, 0]));
    assert_eq!(region(7).unwrap(), u32s(&[32, 3, 7, 0, 4096, 0, 0, 0]));
    assert_eq!(region(9), Err(EINVAL));
    let mut irq = |index| client.call(command::IRQ_INFO, &u32s(&[16, 0, index, 0]), &[]);
    assert_eq!(irq(0).unwrap(), u32s(&[16, 0, 0, 0]));
    assert_eq!(irq(2).unwrap(), u32s(&[16, 3, 2, 5]));
    assert_eq!(irq(5), Err(EINVAL));
    client.quit();
}

#[test]
fn configuration_space_is_that_of_an_nvme_endpoint() {
    let mut client = client();
    let config = client.read_region(7, 0, 256).unwrap();
    assert_eq!(config[9..12], [0x02, 0x08, 0x01]);
    assert_eq!(config[0x3d], 0, "no INTx");
    let mut capabilities = Vec::new();
    let mut at = usize::from(config[0x34]);
    while at != 0 {
        capabilities.push(config[at]);
        at = usize::from(config[at + 1]);
    }
    assert_eq!(capabilities, [0x11, 0x10, 0x01]);
    // A BAR tells its size by what can't be written.
    client.write_region(7, 0x10, &[0xff; 8]).unwrap();
    let bar = client.read_region(7, 0x10, 8).unwrap();
    assert_eq!(bar, u64s(&[0xffff_ffff_ffff_c004]));
    client.write_region(7, 0, &[0; 4]).unwrap();
    assert_eq!(client.read_region(7, 0, 4).unwrap(), config[..4]);
    client.quit();
}

#[test]
fn maps_and_unmaps() {
    let mut client = client();
    client.ask(&Request::Begin);
    client.map(0x10000, 0x1000, 0x3000, 3).unwrap();
    client.map(0x11000, 0x2000, 0x8000, 1).unwrap();
    assert_eq!(client.map(0x12000, 0x1000, 0, 3), Err(EEXIST));
    let first = Mapping { iova: 0x10000, size: 0x1000, offset: 0x3000, read: true, write: true };
    let second = Mapping { iova: 0x11000, size: 0x2000, offset: 0x8000, read: true, write: false };
    let shadow = Reply::Shadow { mappings: vec![first, second] };
    assert_eq!(client.ask(&Request::Shadow), shadow);
    assert_eq!(client.unmap(0x12000, 0x1000), Err(EINVAL), "it would be cut in two");
    client.unmap(0x11000, 0x2000).unwrap();
    // QEMU takes address spaces down by powers of two, whatever is there.
    client.unmap(0, 1 << 38).unwrap();
    client.unmap(0, 1 << 38).unwrap();
    client.map(0x10000, 0x1000, 0, 3).unwrap();
    client.call(command::DMA_UNMAP, &[u32s(&[24, 2]), u64s(&[0, 0])].concat(), &[]).unwrap();
    let counts = client.counts();
    assert_eq!((counts.maps, counts.unmaps, counts.unmaps_in_vain), (3, 3, 1));
    assert_eq!((counts.mapped_bytes, counts.unmapped_bytes), (0x4000, 0x4000));
    assert_eq!((counts.peak, counts.live_before, counts.live_after), (2, 0, 0));
    client.quit();
}

#[test]
fn refuses_a_mapping_past_its_file() {
    let mut client = client();
    assert_eq!(client.map(0, 0x1000, crate::client::RAM, 3), Err(EINVAL));
    assert_eq!(client.map(0, 0x1000, u64::MAX - 0xfff, 3), Err(EINVAL));
    assert_eq!(client.map(0, 0, 0, 3), Err(EINVAL));
    assert_eq!(client.map(u64::MAX, 2, 0, 3), Err(EINVAL));
    let body = map_body(0, 0x1000, 0, 3);
    let (pipe, _other) = std::io::pipe().unwrap();
    assert_eq!(client.call(command::DMA_MAP, &body, &[pipe.as_fd()]), Err(EINVAL));
    // Without a file it is a mapping that can't be used: the client's ROM, for example.
    client.call(command::DMA_MAP, &body, &[]).unwrap();
    client.quit();
}

#[test]
fn sends_no_reply_if_none_is_wanted() {
    let mut client = client();
    let body = [u32s(&[24, 0]), u64s(&[0, 0])].concat();
    client.post(command::DMA_UNMAP, &body, 0x10, &[]);
    client.post(99, &[], 0x10, &[]);
    client.post_region(7, 0x3c, &[7]);
    assert_eq!(client.read_region(7, 0x3c, 1).unwrap(), [7]);
    client.quit();
}

#[test]
fn resets_the_controller_and_keeps_mappings() {
    let mut client = client();
    client.map(0x10000, 0x1000, 0, 3).unwrap();
    client.write_region(0, 0x24, &u32s(&[0x0001_0001])).unwrap();
    client.call(command::RESET, &[], &[]).unwrap();
    assert_eq!(client.read_region(0, 0x24, 4).unwrap(), [0; 4]);
    assert!(
        matches!(client.ask(&Request::Shadow), Reply::Shadow { mappings } if mappings.len() == 1)
    );
    client.quit();
}

#[test]
fn binds_masks_and_unbinds_ranges_of_interrupts() {
    let mut client = client();
    let flags = rustix::event::EventfdFlags::NONBLOCK;
    let fds: Vec<_> = (0..2).map(|_| rustix::event::eventfd(0, flags).unwrap()).collect();
    let raised = |at: usize| rustix::io::read(&fds[at], &mut [0; 8]).is_ok();
    let given = || fds.iter().map(|fd| fd.try_clone().unwrap()).collect::<Vec<_>>();
    client.set_irqs(0x24, 3, 2, &given()).unwrap();
    assert_eq!(client.set_irqs(0x24, 4, 2, &given()), Err(EINVAL), "there are five");
    assert_eq!(client.set_irqs(0x24, 0, 3, &given()), Err(EINVAL), "one is missing");
    client.set_irqs(0x21, 3, 1, &[]).unwrap();
    assert_eq!((raised(0), raised(1)), (true, false));
    client.set_irqs(0x09, 4, 1, &[]).unwrap();
    client.set_irqs(0x21, 3, 2, &[]).unwrap();
    assert_eq!((raised(0), raised(1)), (true, false));
    assert_eq!(client.read_region(0, 0x3000, 8).unwrap(), u64s(&[1 << 4]), "pending");
    client.set_irqs(0x11, 4, 1, &[]).unwrap();
    assert_eq!((raised(0), raised(1)), (false, true));
    client.set_irqs(0x24, 3, 1, &[]).unwrap();
    client.set_irqs(0x21, 3, 2, &[]).unwrap();
    assert_eq!((raised(0), raised(1)), (false, true));
    client.set_irqs(0x21, 0, 0, &[]).unwrap();
    client.set_irqs(0x21, 3, 2, &[]).unwrap();
    assert_eq!((raised(0), raised(1)), (false, false));
    client.quit();
}

#[test]
fn answers_unknown_or_incomplete_commands_with_an_errno() {
    let mut client = client();
    for unknown in [0, 6, 11, 12, 14, 15, 999] {
        assert_eq!(client.call(unknown, &[], &[]), Err(ENOSYS), "{unknown}");
    }
    for known in [1, 2, 3, 4, 5, 7, 8, 9, 10] {
        assert_eq!(client.call(known, &[1, 0], &[]), Err(EINVAL), "{known}");
    }
    let capabilities = [&[0; 4][..], b"{}\0"].concat();
    assert_eq!(client.call(command::VERSION, &capabilities, &[]), Err(EINVAL), "twice");
    assert_eq!(client.read_region(0, 0x3fff, 2), Err(EINVAL));
    assert_eq!(client.read_region(1, 0, 1), Err(EINVAL));
    assert_eq!(client.read_region(0, u64::MAX, 4), Err(EINVAL));
    assert_eq!(client.read_region(7, 0, 2 << 20), Err(7), "E2BIG");
    client.quit();
}

#[test]
fn assembles_messages_from_any_pieces() {
    let mut client = client();
    let ram = client.ram.try_clone().unwrap();
    let message = |id: u16, command: u16, body: &[u8]| {
        let header =
            [u32s(&[u32::from(id) | u32::from(command) << 16, 16 + body.len() as u32]), vec![0; 8]];
        [header.concat(), body.to_vec()].concat()
    };
    let info = message(1, command::DEVICE_INFO, &u32s(&[16, 0, 0, 0]));
    let map = message(2, command::DMA_MAP, &map_body(0x5000, 0x1000, 0, 3));
    // Three at once, the last of them with a file and its end still to come.
    client.send(&[&info[..], &info[..]].concat(), &[]);
    client.send(&map[..20], &[ram.as_fd()]);
    for byte in &map[20..] {
        client.send(&[*byte], &[]);
    }
    client.send(&info, &[]);
    let ids: Vec<_> =
        (0..4).map(|_| client.receive()).map(|reply| (reply.id, reply.error)).collect();
    assert_eq!(ids, [(1, 0), (1, 0), (2, 0), (1, 0)]);
    client.quit();
}

#[test]
fn drops_an_invalid_client_and_serves_the_next() {
    let mut client = Client::silent(Settings::default());
    assert_eq!(
        client.call(command::DEVICE_INFO, &u32s(&[16, 0, 0, 0]), &[]),
        Err(EINVAL),
        "no version"
    );
    client.send(&[0xff; 16], &[]);
    let mut byte = [0];
    let end = std::io::Read::read(&mut client.stream, &mut byte);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    match client.answer() {
        Reply::Lost { what } => assert!(what.starts_with("not a vfio-user message"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.ask(&Request::Shadow), Reply::Shadow { .. }));
    client.quit();
}

#[test]
fn reports_a_client_that_disconnects() {
    let mut client = Client::new(Settings::default());
    client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(matches!(client.answer(), Reply::Lost { .. }));
    client.quit();
}
