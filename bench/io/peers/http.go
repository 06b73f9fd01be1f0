// SPDX-License-Identifier: MIT
//
// http.go - an HTTP server on Go's net/http
//
//	http PORT THREADS [CERTIFICATE]      with one: TLS; .crt and .key are added
package main

import (
	"log"
	"net/http"
	"os"
	"runtime"
	"strconv"
)

var body = []byte("Hello, World!")

func hello(w http.ResponseWriter, r *http.Request) {
	w.Header()["Content-Type"] = []string{"text/plain"}
	w.Write(body)
}

func main() {
	threads, _ := strconv.Atoi(os.Args[2])
	runtime.GOMAXPROCS(threads)
	if len(os.Args) > 3 {
		log.Fatal(http.ListenAndServeTLS("127.0.0.1:"+os.Args[1], os.Args[3]+".crt", os.Args[3]+".key",
			http.HandlerFunc(hello)))
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(hello)))
}
