// SPDX-License-Identifier: MIT
//
// tokio.rs - an echo server, a round trip to a thread and a sleep of 1 ms on tokio's stealing runtime
//
//     tokio echo PORT THREADS
//     tokio offload|sleep SECONDS THREADS
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn echo(mut c: TcpStream) {
    let mut buf = [0u8; 4096];
    c.set_nodelay(true).unwrap();
    while let Ok(n) = c.read(&mut buf).await {
        if n == 0 || c.write_all(&buf[..n]).await.is_err() {
            break;
        }
    }
}

async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (c, _) = listener.accept().await.unwrap();
        tokio::spawn(echo(c));
    }
}

async fn latency(what: &str, seconds: f64) {
    let mut late = Vec::new();
    let mut begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    while begin < end {
        if what == "sleep" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        }
        let now = Instant::now();
        let us = (now - begin).as_secs_f64() * 1e6;
        late.push(if what == "sleep" { us - 1000.0 } else { us });
        begin = now;
    }
    late.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let n = late.len();
    println!("{{\"n\":{},\"p50_us\":{:.2},\"p99_us\":{:.2}}}", n, late[n / 2], late[n * 99 / 100]);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads = args[3].parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let main = async move {
        if args[1] == "echo" {
            serve(args[2].parse().unwrap()).await
        } else {
            // On a worker, as everybody else's.
            tokio::spawn(async move { latency(&args[1], args[2].parse().unwrap()).await }).await.unwrap()
        }
    };
    runtime.unwrap().block_on(main);
}
