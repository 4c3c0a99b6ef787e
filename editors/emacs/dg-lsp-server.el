;;; dg-lsp-server.el --- The language server, however it is connected  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Settings, and how the server is asked.  Who starts it and tells it of edits
;; is in `dg-lsp-eglot' and `dg-lsp-connection', by methods of the generic
;; functions here.

;;; Code:

(require 'cl-lib)
(require 'eieio)
(require 'jsonrpc)
(require 'dg-lsp-ghost)

(defcustom dg-lsp-command '("dg-lsp")
  "The command that starts the language server, as a list of strings."
  :type '(repeat string)
  :group 'dg-lsp)

(defcustom dg-lsp-settings nil
  "Settings of the server as a property list, for instance (:multiLine \"never\").
True is t, false is `:json-false', and a list of strings may be given as
such.  `dg-lsp-configure' changes them while the server is up.

The section `:dg' of `eglot-workspace-configuration' goes before, so
that a project can have its own in its directory-local variables."
  :type 'plist
  :group 'dg-lsp)

(defclass dg-lsp-server ()
  ((status :initform nil :accessor dg-lsp-server-status
           :documentation "What the server last told of its state, a plist.")
   (last-id :initform nil :accessor dg-lsp-server-last-id
            :documentation "The number of the newest request."))
  "A connection to dg-lsp, together with a kind of `jsonrpc-connection'."
  :abstract t)

;;;; What depends on the kind of connection

(defvar dg-lsp-server-functions nil
  "Functions that return the dg-lsp server of the current buffer, or nil.")

(cl-defgeneric dg-lsp-server-flush (server)
  "Tell SERVER of the edits of this buffer that it does not know yet.")

(cl-defgeneric dg-lsp-server-place (server)
  "Return the document and the position of point in the terms of SERVER.")

(cl-defgeneric dg-lsp-server-version (server)
  "Return the number under which SERVER knows this buffer's text.")

(cl-defgeneric dg-lsp-server-point (server position)
  "Return where in this buffer the POSITION of SERVER is.")

(cl-defgeneric dg-lsp-server-tell-settings (server)
  "Let SERVER know that settings have changed.")

(cl-defgeneric dg-lsp-server-hear (_server _method &rest _params)
  "Take a notification METHOD with PARAMS of SERVER; others mean nothing here."
  nil)

(defun dg-lsp-current-server ()
  "Return the dg-lsp server of the current buffer, or nil."
  (let ((server (run-hook-with-args-until-success 'dg-lsp-server-functions)))
    (and server (jsonrpc-running-p server) server)))

(defun dg-lsp-server-or-lose ()
  "Return the dg-lsp server of the current buffer, or tell that there is none."
  (or (dg-lsp-current-server)
      (user-error "This buffer has no dg-lsp; start it with M-x dg-lsp-mode")))

;;;; Settings

(defun dg-lsp--json (value)
  "Return VALUE with every list that is no plist as a vector."
  (cond ((not (consp value)) value)
        ((keywordp (car value))
         (cl-loop for (key inner) on value by #'cddr
                  append (list key (dg-lsp--json inner))))
        (t (vconcat (mapcar #'dg-lsp--json value)))))

(defun dg-lsp--merge (below above)
  "Return the settings BELOW with those of ABOVE over them, both plists."
  (cl-loop with merged = (copy-sequence below)
           for (key value) on above by #'cddr
           for under = (plist-get below key)
           do (setq merged
                    (plist-put merged key
                               (if (and (keywordp (car-safe value))
                                        (keywordp (car-safe under)))
                                   (dg-lsp--merge under value)
                                 value)))
           finally return merged))

(defun dg-lsp-server-settings (&optional project)
  "Return `dg-lsp-settings' for the server, those of PROJECT over them."
  (or (dg-lsp--json (dg-lsp--merge dg-lsp-settings project))
      (make-hash-table :size 1)))

(defmacro dg-lsp-server-unasked (&rest body)
  "Run BODY, in which only local variables that are safe are read.
A server asks for its settings at any time, and a question to the user
would take what is being typed for the answer."
  (declare (indent 0) (debug t))
  `(let ((enable-local-variables (and enable-local-variables :safe))
         (enable-local-eval nil))
     ,@body))

(defvar eglot-workspace-configuration)

(defun dg-lsp-server-project-settings (root)
  "Return the settings that the project at ROOT has of its own."
  (with-temp-buffer
    (setq default-directory root)
    (dg-lsp-server-unasked (hack-dir-local-variables-non-file-buffer))
    (let ((local (bound-and-true-p eglot-workspace-configuration)))
      (and (keywordp (car-safe local)) (plist-get local :dg)))))

(defun dg-lsp-configure (&rest settings)
  "Lay the plist SETTINGS over `dg-lsp-settings', and tell all servers.
A setting that is nil takes the server's default again."
  (setq dg-lsp-settings (dg-lsp--merge dg-lsp-settings settings))
  (mapc #'dg-lsp-server-tell-settings (dg-lsp--servers)))

(defun dg-lsp--servers ()
  "Return all dg-lsp servers that are up."
  (cl-delete-duplicates
   (delq nil (mapcar (lambda (buffer)
                       (with-current-buffer buffer (dg-lsp-current-server)))
                     (buffer-list)))))

;;;; Requests

(cl-defmethod jsonrpc-connection-send :before
  ((server dg-lsp-server) &key id method &allow-other-keys)
  "Note the ID of a request, so that SERVER can be told to give it up.
A message without METHOD is an answer, and its id the server's own."
  (when (and id method)
    (setf (dg-lsp-server-last-id server) id)))

(defun dg-lsp-server-send (server method params then &optional otherwise)
  "Ask SERVER for METHOD with PARAMS, and return the number of the request.
THEN is called with the result, OTHERWISE with the message of an error."
  (jsonrpc-async-request
   server method params
   :success-fn then
   :error-fn (jsonrpc-lambda (&key message &allow-other-keys)
               ;; Eglot would show it in the mode line until the next message.
               (setf (jsonrpc-last-error server) nil)
               (when otherwise (funcall otherwise message)))
   ;; The server answers everything in its own time, and an answer after the
   ;; client's patience would be an error in Emacs 28.
   :timeout nil)
  (dg-lsp-server-last-id server))

(defun dg-lsp-server-cancel (server id)
  "Tell SERVER that the answer to request ID is not wanted any more."
  (when (jsonrpc-running-p server)
    (jsonrpc-notify server :$/cancelRequest (list :id id))))

(defun dg-lsp-server-command (server command arguments then)
  "Let SERVER execute COMMAND with the list ARGUMENTS; THEN gets the result."
  (dg-lsp-server-send
   server :workspace/executeCommand
   (list :command command :arguments (vconcat arguments))
   then (lambda (reason) (message "dg-lsp: %s" reason))))

;;;; Pause

(defvar dg-lsp-server--paused-until 0
  "When the pause ends that was asked for last, as `float-time' has it.")

(defun dg-lsp-server-pause-all (minutes then)
  "Let no server offer anything unasked for MINUTES, 0 to end that.
That holds for servers that start meanwhile too.  THEN gets the answer
of each that is up."
  (setq dg-lsp-server--paused-until (+ (float-time) (* 60 minutes)))
  (dolist (server (dg-lsp--servers))
    (dg-lsp-server-command server "dg.snooze" (list minutes) then)))

(defun dg-lsp-server-pause-too (server)
  "Let SERVER, which has just come, take part in the pause."
  (let ((left (- dg-lsp-server--paused-until (float-time))))
    (when (> left 0)
      (dg-lsp-server-command server "dg.snooze" (list (/ left 60)) #'ignore))))

(provide 'dg-lsp-server)
;;; dg-lsp-server.el ends here
