//! Runs a command while VFIO has a device of this host: `with_device ADDRESS [NAME=VALUE...] COMMAND...`.
//! Words of the command that are `{}` become the arguments by which QEMU gets the device; `NAME=VALUE`
//! is put into its environment.
//!
//! For trying things out by hand. It is ended by Ctrl-C without giving the device back; the next run
//! does that.

use std::{
    error::Error,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use dmarig_hostdev::{Address, Choice, Host, Wishes, qemu_arguments};

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let address: Address =
        words.next().ok_or("give the device's address and a command")?.parse()?;
    let words: Vec<_> = words.collect();
    let variables: Vec<_> = words.iter().map_while(|word| word.split_once('=')).collect();
    let program = words.get(variables.len()).ok_or("give a command too")?;
    let host = Host::real();
    let state = Path::new("/run/dmarig");
    for mended in host.recover(state)? {
        println!("{mended}");
    }
    let device = host.inspect(address)?;
    let obstacles = device.obstacles(&Wishes::default());
    for obstacle in &obstacles {
        println!("{obstacle}");
    }
    if !obstacles.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let bound = host.bind(&device, &[], state)?;
    println!("{bound}");
    let device = qemu_arguments(&bound, bound.interface(Choice::default())?, &[]);
    let arguments = words[variables.len() + 1..].iter().flat_map(|word| match word.as_str() {
        "{}" => device.clone(),
        _ => vec![word.clone()],
    });
    let start = Instant::now();
    let status = Command::new(program).args(arguments).envs(variables.iter().copied()).status();
    println!("command {} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    bound.restore()?;
    println!("restore {} s", start.elapsed().as_secs_f64());
    println!("{status:?}");
    Ok(status?
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}
