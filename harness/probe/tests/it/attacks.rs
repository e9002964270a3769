//! DMA that must fault, with a client that lets it through or not.

use std::os::fd::AsFd;

use dmarig_model::probe::{Attack, AttackOutcome, Reply, Request, Settings};
use dmarig_probe::protocol::command;

use crate::{
    client::{Client, map_body, u32s},
    driver::{Command, Driver, OK, PAGE, settings},
};

/// Flag of a message whose sender waits for no reply.
const NO_REPLY: u32 = 0x10;

/// Attacks, with the client's answer to what it is asked: an errno, or 0 to let it through.
fn attack(driver: &mut Driver, kind: Attack, error: u32) -> AttackOutcome {
    driver.client.ask_first(&Request::Attack { kind });
    // A client may be asked several times, where the guest seems to have been faster.
    let asked = driver.client.receive();
    let write = kind == Attack::ReadOnly;
    assert_eq!(asked.command, if write { command::DMA_WRITE } else { command::DMA_READ });
    assert_eq!(asked.flags, 0);
    let body = if error == 0 && !write { [&asked.body[..], &[0; 8]].concat() } else { Vec::new() };
    driver.client.reply(&asked, error, &body);
    match driver.client.answer() {
        Reply::Attacked { outcome } => {
            assert_eq!(asked.body[..8], outcome.iova.unwrap().to_le_bytes());
            assert_eq!((outcome.kind, outcome.size), (kind, 8));
            assert!(!outcome.shadow_let_through);
            outcome
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn tries_each_attack_through_shadow_and_client() {
    let mut driver = Driver::new(settings());
    let read_only = driver.reserve(1);
    let gone = driver.reserve(1);
    driver.map(gone, 3);
    driver.io(Command::io(2, 1, 0, 1, [gone.iova, 0]));
    driver.unmap(gone);
    driver.map(read_only, 1);
    let iovas: Vec<_> =
        [Attack::Unmapped, Attack::ReadOnly, Attack::PastTheEnd, Attack::AfterUnmap]
            .into_iter()
            .map(|kind| {
                let refused = attack(&mut driver, kind, 14);
                assert_eq!(refused.hypervisor_let_through, Some(false));
                assert_eq!(attack(&mut driver, kind, 0).hypervisor_let_through, Some(true));
                refused.iova.unwrap()
            })
            .collect();
    assert_eq!((iovas[1], iovas[3]), (read_only.iova, gone.iova));
    assert_eq!(iovas[2] % PAGE, PAGE - 4);
    driver.client.quit();
}

#[test]
fn handles_a_doorbell_during_an_attack() {
    let mut driver = Driver::new(settings());
    let data = driver.pages(1);
    driver.client.ask_first(&Request::Attack { kind: Attack::ReadOnly });
    // The probe looks for one again and again, and finds it with no command under way.
    let read_only = driver.reserve(1);
    let ram = driver.client.ram.try_clone().unwrap();
    let body = map_body(read_only.iova, PAGE, read_only.offset, 1);
    driver.client.post(command::DMA_MAP, &body, NO_REPLY, &[ram.as_fd()]);
    let asked = driver.client.receive();
    driver.submit(1, Command::io(2, 1, 0, 1, [data.iova, 0]));
    // Has the probe see the doorbell first.
    driver.client.post(command::DEVICE_INFO, &u32s(&[16, 0, 0, 0]), 0, &[]);
    driver.client.receive();
    assert_eq!(asked.command, command::DMA_WRITE);
    driver.client.reply(&asked, 14, &[]);
    assert_eq!(driver.wait(1).status, OK);
    assert!(matches!(driver.client.answer(), Reply::Attacked { .. }));
    driver.client.quit();
}

#[test]
fn reports_an_attack_without_a_suitable_mapping() {
    let mut driver = Driver::new(settings());
    let reply = driver.client.ask(&Request::Attack { kind: Attack::AfterUnmap });
    let Reply::Attacked { outcome } = reply else { panic!("{reply:?}") };
    assert_eq!((outcome.iova, outcome.hypervisor_let_through), (None, None));
    driver.client.quit();
}

#[test]
fn refuses_attacks_while_the_controller_is_disabled() {
    let mut client = Client::new(Settings::default());
    let reply = client.ask(&Request::Attack { kind: Attack::Unmapped });
    assert!(matches!(&reply, Reply::Failed { what } if what.contains("not enabled")), "{reply:?}");
    client.quit();
}
