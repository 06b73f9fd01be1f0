// SPDX-License-Identifier: MIT
//
// tokio.rs - an echo server, a round trip to a thread, a sleep of 1 ms, and many small files read or written
// whole by 64 tasks, on tokio's stealing runtime
//
//     tokio echo PORT THREADS
//     tokio offload|sleep SECONDS THREADS
//     tokio files DIR THREADS N BYTES SECONDS read|write
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
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

struct Files {
    dir: String,
    n: usize,
    bytes: usize,
    is_write: bool,
    next: AtomicUsize,
}

async fn files_of(f: Arc<Files>) {
    let content = vec![0u8; f.bytes];
    loop {
        let i = f.next.fetch_add(1, Ordering::Relaxed);
        if i >= f.n {
            return;
        }
        let path = format!("{}/{:05}", f.dir, i);
        if f.is_write {
            tokio::fs::write(path, &content).await.unwrap();
        } else {
            assert!(tokio::fs::read(path).await.unwrap().len() == f.bytes);
        }
    }
}

async fn pass(f: &Arc<Files>) -> f64 {
    if f.is_write {
        for i in 0..f.n {
            let _ = std::fs::remove_file(format!("{}/{:05}", f.dir, i));
        }
    }
    f.next.store(0, Ordering::Relaxed);
    let begin = Instant::now();
    let all: Vec<_> = (0..64).map(|_| tokio::spawn(files_of(f.clone()))).collect();
    for task in all {
        task.await.unwrap();
    }
    begin.elapsed().as_secs_f64()
}

// The first pass is not counted.
async fn files(f: Arc<Files>, seconds: f64) {
    let (mut spent, mut passes) = (0.0, 0);
    pass(&f).await;
    while spent < seconds {
        spent += pass(&f).await;
        passes += 1;
    }
    println!("{{\"rate\":{:.0}}}", (f.n * passes) as f64 / spent);
}

fn files_from(args: &[String]) -> Arc<Files> {
    Arc::new(Files {
        dir: args[2].clone(),
        n: args[4].parse().unwrap(),
        bytes: args[5].parse().unwrap(),
        is_write: args[7] == "write",
        next: AtomicUsize::new(0),
    })
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads = args[3].parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let main = async move {
        if args[1] == "echo" {
            serve(args[2].parse().unwrap()).await
        } else if args[1] == "files" {
            files(files_from(&args), args[6].parse().unwrap()).await
        } else {
            // On a worker, as everybody else's.
            tokio::spawn(async move { latency(&args[1], args[2].parse().unwrap()).await }).await.unwrap()
        }
    };
    runtime.unwrap().block_on(main);
}
