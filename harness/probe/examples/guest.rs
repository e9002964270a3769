//! Boots a guest with a probe, lets its agent do one job, and prints what both say of it.
//!
//! ```sh
//! cargo run --release --example guest -- --dmarig target/release/dmarig --qemu QEMU \
//!     --kernel debian-6.1 --policy strict [--job '{"Block":{...}}'] [--settings '{...}'] [--attack] \
//!     [--append WORDS] [--add FILE] [--emulated] [--verbose]
//! ```
//!
//! What is between the lines "IOMMU group type" and "errors," of the console is counted: the agent's
//! own, or those of a program that is added and run by
//! `--job '{"Exec":{"argv":["/add/NAME"],"echo":false}}'`.
//!
//! Where its first word is `probe`, it is a probe and nothing else, as `dmarig probe` is: an optimised
//! one for a rig that is not (`dmarig run --probe-program target/release/examples/guest`).
//!
//! With `--emulated` the guest has QEMU's own NVMe device instead, for comparison.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dmarig_model::probe::{Attack, Reply, Request, Settings};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const JOB: &str = r#"{"Block":{"device":"Nvme","block_size":65536,"queue_depth":4,"ops":2000,"read_percent":50,"threads":1,"span":67108864,"seed":1,"used":false,"linger_ms":0}}"#;

fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [probe, socket, _, settings] = &words[..]
        && probe == "probe"
    {
        let settings = serde_json::from_str(settings)?;
        let requests = BufReader::new(std::io::stdin());
        return Ok(dmarig_probe::run(socket.as_ref(), settings, requests, std::io::stdout())?);
    }
    let options = options()?;
    let get = |name: &str, default: &str| {
        options.get(name).cloned().unwrap_or_else(|| default.to_owned())
    };
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("probe.sock");
    let settings: Settings = match options.get("settings") {
        Some(text) => serde_json::from_str(text)?,
        None => Settings::default(),
    };
    let emulated = options.contains_key("emulated");
    let cell = [get("kernel", "debian-6.1"), get("policy", "lazy")];
    let boot = boot(&get("dmarig", "dmarig"), &cell, options.get("add"))?;
    let mut qemu = Command::new(get("qemu", "qemu-system-x86_64"));
    qemu.current_dir(directory.path())
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-M", "q35,kernel-irqchip=split", "-accel", "tcg", "-m", "512M"])
        .args(["-object", "memory-backend-memfd,id=ram,size=512M,share=on"])
        .args(["-machine", "memory-backend=ram"])
        .args(["-device", "intel-iommu,intremap=on,caching-mode=on"])
        .args(["-kernel", &boot[0], "-initrd", &boot[1], "-append"])
        .arg(format!("{} {} dmarig.job={}", boot[2], get("append", ""), get("job", JOB)))
        .args(["-serial", "stdio", "-serial", "null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if emulated {
        let disk = std::fs::File::create(directory.path().join("disk.img"))?;
        disk.set_len(settings.disk_bytes)?;
        qemu.args(["-blockdev", "driver=file,node-name=disk,filename=disk.img,cache.no-flush=on"]);
        qemu.args(["-device", "nvme,serial=dmarig,drive=disk"]);
    } else {
        let path = socket.display();
        qemu.arg("-device").arg(format!(
            r#"{{"driver":"vfio-user-pci","socket":{{"type":"unix","path":"{path}"}}}}"#
        ));
    }
    let (ours, theirs) = UnixStream::pair()?;
    let path = socket.clone();
    let replies = theirs.try_clone()?;
    let probe =
        thread::spawn(move || dmarig_probe::run(&path, settings, BufReader::new(theirs), replies));
    let mut control = Control { replies: BufReader::new(ours.try_clone()?), requests: ours };
    control.reply()?;
    let mut child = qemu.spawn()?;
    let attack = options.contains_key("attack");
    let result = watch(&mut child, &mut control, attack, options.contains_key("verbose"));
    let status = child.kill().and_then(|()| child.wait())?;
    println!("QEMU: {status}");
    control.ask(&Request::Quit)?;
    probe.join().map_err(|_| "the probe panicked")??;
    result
}

fn options() -> Result<BTreeMap<String, String>, Failure> {
    let mut options = BTreeMap::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let name = word.strip_prefix("--").ok_or("an option is expected")?.to_owned();
        let flag = ["attack", "emulated", "verbose"].contains(&name.as_str());
        let value = if flag { String::new() } else { words.next().ok_or("a value is expected")? };
        options.insert(name, value);
    }
    Ok(options)
}

/// Kernel, initramfs and command line, as the rig would have them.
fn boot(
    dmarig: &str,
    [kernel, policy]: &[String; 2],
    add: Option<&String>,
) -> Result<[String; 3], Failure> {
    let cell = format!("smoke/caching-mode=on,policy={policy},kernel={kernel}");
    let arguments = ["plan", &cell, "-k", kernel, "--accel", "tcg"];
    let add = add.iter().flat_map(|file| ["--add", file.as_str()]);
    let output = Command::new(dmarig).args(arguments).args(add).output()?;
    let plan = String::from_utf8(output.stdout)?;
    let find = |option: &str| -> Result<String, Failure> {
        let line = plan.lines().find_map(|line| line.trim().strip_prefix(option));
        let line = line.ok_or_else(|| {
            format!("no {option} in the plan: {}", String::from_utf8_lossy(&output.stderr))
        })?;
        Ok(line.trim_end_matches('\\').trim().trim_matches('\'').to_owned())
    };
    Ok([find("-kernel ")?, find("-initrd ")?, find("-append ")?])
}

/// Follows the console until QEMU ends: the job's window is counted.
fn watch(
    child: &mut Child,
    control: &mut Control,
    attack: bool,
    verbose: bool,
) -> Result<(), Failure> {
    let console = child.stdout.take().ok_or("no console")?;
    let began = Instant::now();
    for line in BufReader::new(console).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        let news = ["operations", "errors", "latency", "problem", "group type", "Linux version"];
        let iommu = line.contains("DMAR") && (line.contains("batch") || line.contains("fault"));
        if verbose || iommu || line.contains("nvme") || news.iter().any(|word| line.contains(word))
        {
            println!("{:7.3} {line}", began.elapsed().as_secs_f64());
        }
        if line.contains("IOMMU group type") {
            control.ask(&Request::Begin)?;
            if attack {
                control.attack_later()?;
            }
        }
        if line.contains(" errors, ") {
            println!("{}", control.ask(&Request::End)?);
        }
    }
    Ok(())
}

struct Control {
    requests: UnixStream,
    replies: BufReader<UnixStream>,
}

impl Control {
    fn ask(&mut self, request: &Request) -> Result<String, Failure> {
        writeln!(self.requests, "{}", serde_json::to_string(request)?)?;
        self.reply()
    }

    fn reply(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.replies.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// All attacks, when the guest's work has begun.
    fn attack_later(&mut self) -> Result<(), Failure> {
        thread::sleep(Duration::from_millis(500));
        for kind in [Attack::Unmapped, Attack::ReadOnly, Attack::PastTheEnd, Attack::AfterUnmap] {
            let line = self.ask(&Request::Attack { kind })?;
            match serde_json::from_str(&line)? {
                Reply::Attacked { outcome } => println!("{outcome:x?}"),
                other => println!("{kind:?}: {other:?}"),
            }
        }
        Ok(())
    }
}
