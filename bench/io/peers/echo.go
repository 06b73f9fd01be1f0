// SPDX-License-Identifier: MIT
//
// echo.go - an echo server in Go: a goroutine per connection
//
//	echo PORT THREADS [CERTIFICATE]      with one: TLS; .crt and .key are added
package main

import (
	"crypto/tls"
	"log"
	"net"
	"os"
	"runtime"
	"strconv"
)

func echo(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err = c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func main() {
	threads, _ := strconv.Atoi(os.Args[2])
	runtime.GOMAXPROCS(threads)
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if len(os.Args) > 3 {
		pair, err := tls.LoadX509KeyPair(os.Args[3]+".crt", os.Args[3]+".key")
		if err != nil {
			log.Fatal(err)
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}})
	}
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go echo(c)
	}
}
