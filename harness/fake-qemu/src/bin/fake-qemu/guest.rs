//! A machine with a guest in it, as far as the rig can tell.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    os::unix::net::UnixStream,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use dmarig_fake_qemu::{CONSOLE_FLOOD, DEVICE_TROUBLE, QEMU_LAST_WORDS, QemuScript};
use serde_json::{Value, json};

use crate::{
    agent::{Agent, never_answers},
    die, hang,
    monitor::{converse, iommu_defaults},
};

/// What it was started with.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) cmdline: String,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u64,
    pub(crate) iommu: BTreeMap<String, Value>,
}

impl Machine {
    fn new(arguments: &[String]) -> Self {
        let after = |name: &str| {
            let at = arguments.iter().position(|word| word == name).expect("an option");
            arguments[at + 1].as_str()
        };
        let mut iommu = iommu_defaults();
        let device = arguments.iter().find(|word| word.starts_with("intel-iommu")).unwrap();
        for pair in device.split(',').skip(1) {
            let (name, value) = pair.split_once('=').unwrap();
            let value = match value {
                "on" => json!(true),
                "off" => json!(false),
                other => other.parse::<u64>().map_or_else(|_| json!(other), Value::from),
            };
            iommu.insert(name.to_owned(), value);
        }
        Self {
            cmdline: after("-append").to_owned(),
            cpus: after("-smp").parse().unwrap(),
            memory_mib: after("-m").trim_end_matches('M').parse().unwrap(),
            iommu,
        }
    }

    /// The capability registers that go with its properties.
    pub(crate) fn registers(&self) -> (u64, u64) {
        let on = |name: &str| u64::from(self.iommu[name] == true);
        let width = self.iommu["aw-bits"].as_u64().unwrap_or(39);
        let cap = (width - 1) << 16 | on("caching-mode") << 7 | 1 << 39 | 18 << 48;
        let ecap = on("device-iotlb") << 2 | on("pt") << 6 | on("x-scalable-mode") << 43 | 2;
        (cap, ecap)
    }
}

/// The ends of its channels.
pub(crate) struct Channels {
    pub(crate) console: UnixStream,
    pub(crate) agent: UnixStream,
    pub(crate) qmp: Arc<Mutex<UnixStream>>,
    pub(crate) trace: File,
}

impl Channels {
    fn connect() -> Self {
        let connect = |name: &str| UnixStream::connect(name).expect("the rig listens");
        Self {
            console: connect("console.sock"),
            agent: connect("agent.sock"),
            qmp: Arc::new(Mutex::new(connect("qmp.sock"))),
            trace: OpenOptions::new().write(true).open("trace.fifo").expect("the rig reads"),
        }
    }

    pub(crate) fn event(&self, name: &str, data: &Value) {
        let event =
            json!({"timestamp": {"seconds": 1, "microseconds": 0}, "event": name, "data": data});
        let _ = writeln!(self.qmp.lock().unwrap(), "{event}\r");
    }

    /// As `-no-reboot` has it.
    pub(crate) fn reset(&self) -> ! {
        self.event("SHUTDOWN", &json!({"guest": true, "reason": "guest-reset"}));
        std::process::exit(0)
    }
}

/// Writes whole lines to the monitor, so that events don't come between their halves.
struct Shared(Arc<Mutex<UnixStream>>, Vec<u8>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.extend_from_slice(bytes);
        if self.1.ends_with(b"\n") {
            self.0.lock().unwrap().write_all(&std::mem::take(&mut self.1))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs the guest until QEMU is told to quit.
pub(crate) fn play(script: QemuScript, arguments: &[String]) -> ExitCode {
    match script {
        QemuScript::Dies => die(),
        QemuScript::DiesAfterManyWords => {
            for number in 0..200 {
                eprintln!("fake-qemu: warning: {number} is not a good number");
            }
            die()
        }
        QemuScript::NeverConnects => hang(),
        _ => {}
    }
    let machine = Machine::new(arguments);
    let channels = Channels::connect();
    match script {
        QemuScript::Babbles => {
            let _ = channels.qmp.lock().unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            hang()
        }
        QemuScript::IsMute => hang(),
        QemuScript::DiesWhenConnected => {
            drop(channels);
            std::thread::sleep(Duration::from_millis(300));
            die()
        }
        _ => {}
    }
    // Handlers stay for the rest of the process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    if matches!(script, QemuScript::IsStubborn | QemuScript::HangsAndIgnoresTerm) {
        let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    }
    let input = channels.qmp.lock().unwrap().try_clone().unwrap();
    let output = Shared(Arc::clone(&channels.qmp), Vec::new());
    let mut waiting = Some((machine.clone(), channels));
    let conversation = converse(script, input, output, |name, arguments| {
        let answer = match name {
            "qom-get" => machine.iommu[arguments["property"].as_str().unwrap()].clone(),
            "human-monitor-command" => register(script, &machine, arguments),
            "cont" if script == QemuScript::Refuses => {
                let error = json!({"class": "GenericError", "desc": "the guest is not at home"});
                return json!({"error": error});
            }
            "cont" => {
                let (machine, channels) = waiting.take().expect("one cont");
                std::thread::spawn(move || run(script, machine, channels));
                json!({})
            }
            "quit" if script == QemuScript::IsStubborn => hang(),
            _ => json!({}),
        };
        json!({"return": answer})
    });
    if script == QemuScript::ClosesMonitor {
        hang()
    }
    conversation.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// The answer to `xp /1gx ADDRESS`.
fn register(script: QemuScript, machine: &Machine, arguments: &Value) -> Value {
    let line = arguments["command-line"].as_str().unwrap();
    let (mut cap, ecap) = machine.registers();
    if script == QemuScript::Contradicts {
        cap ^= 1 << 7;
    }
    let value = if line.ends_with("08") { cap } else { ecap };
    json!(format!("00000000fed90008: {value:#018x}\r\n"))
}

/// The guest itself.
fn run(script: QemuScript, machine: Machine, mut channels: Channels) {
    let mut print = |text: &str| {
        let _ = channels.console.write_all(text.as_bytes());
    };
    print("[    0.000000] Linux version 6.1.0-fake\r\n");
    match script {
        QemuScript::Panics => {
            print("[    1.000000] Kernel panic - not syncing: No working init found.\r\n");
            channels.reset()
        }
        QemuScript::PanicsInColour => {
            print("[    1.0] Kernel panic - not syncing: \x1b]0;owned\x07\x1b[2J\u{202e}\r\n");
            channels.reset()
        }
        QemuScript::FloodsConsoleAndPanics => {
            for _ in 0..100 {
                print(&"x\n".repeat(50_000));
            }
            print("[    1.000000] Kernel panic - not syncing: enough\r\n");
            channels.reset()
        }
        QemuScript::FloodsConsole => {
            let line = format!("[    1.000000] {}\r\n", "flood ".repeat(10));
            for _ in 0..CONSOLE_FLOOD / 1000 {
                print(&line.repeat(1000));
            }
        }
        QemuScript::HasNoAgent => hang(),
        _ => {}
    }
    print("[    2.000000] Run /init as init process\r\n");
    Agent { script, machine, channels, log_pieces: 0 }.serve();
}

/// What a script does in the workload instead of doing it.
pub(crate) fn interfere(script: QemuScript, channels: &mut Channels) {
    match script {
        QemuScript::DiesInWorkload => die(),
        QemuScript::HasDeviceTrouble => eprintln!("{DEVICE_TROUBLE}"),
        QemuScript::DiesOfDeviceTrouble => {
            eprintln!("{DEVICE_TROUBLE}");
            die()
        }
        QemuScript::Aborts => {
            eprintln!("{QEMU_LAST_WORDS}");
            std::process::abort()
        }
        QemuScript::Stops => channels.event("STOP", &json!({})),
        QemuScript::HasNoSpace => channels.event(
            "BLOCK_IO_ERROR",
            &json!({"device": "", "operation": "write", "action": "stop", "nospace": true}),
        ),
        QemuScript::Reboots => channels.reset(),
        QemuScript::ClosesMonitor => {
            let _ = channels.qmp.lock().unwrap().shutdown(std::net::Shutdown::Both);
        }
        _ => {}
    }
    if never_answers(script) {
        hang()
    }
}
