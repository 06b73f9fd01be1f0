// SPDX-License-Identifier: MIT
//
// hyper.rs - an HTTP server on hyper: a runtime of one thread for each core, which is how hyper is fastest
//
//     hyper PORT THREADS
use hyper::header::{HeaderValue, CONTENT_TYPE};
use hyper::server::conn::Http;
use hyper::service::service_fn;
use hyper::{Body, Request, Response};
use socket2::{Domain, Socket, Type};
use std::convert::Infallible;
use std::net::SocketAddr;

async fn hello(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    let mut answer = Response::new(Body::from("Hello, World!"));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(answer)
}

fn listener(port: u16) -> std::net::TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}

async fn serve(port: u16) {
    let listener = tokio::net::TcpListener::from_std(listener(port)).unwrap();
    let mut http = Http::new();
    http.http1_only(true).pipeline_flush(true);
    loop {
        let (c, _) = listener.accept().await.unwrap();
        c.set_nodelay(true).unwrap();
        // An error is a client that has gone.
        tokio::task::spawn_local({
            let connection = http.serve_connection(c, service_fn(hello));
            async move { drop(connection.await) }
        });
    }
}

fn run(port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, serve(port));
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (port, n) = (args[1].parse().unwrap(), args[2].parse().unwrap());
    let threads: Vec<_> = (0..n).map(|_: usize| std::thread::spawn(move || run(port))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
